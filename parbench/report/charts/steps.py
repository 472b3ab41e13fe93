"""Charts of step times, a row for each cell: how they are distributed, and their course."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from parbench.figures import speed
from parbench.report.charts.canvas import GRID, MUTED, Chart, marker
from parbench.report.charts.rows import Placed, row_charts
from parbench.report.charts.side_by_side import compact
from parbench.report.panels import Panel
from parbench.text import shown

_POINTS_A_ROW = 240


def step_times(panel: Panel, prefix: str) -> Iterator[Chart]:
    """How step times are distributed in each cell, over all rounds."""
    steps = _all_steps(panel)
    cells = [cell for cell in panel.cells if steps[cell.anchor]]
    numbers = {cell.anchor: _quantiles(steps[cell.anchor]) for cell in cells}

    def draw(ax: Axes, part: Placed) -> None:
        for row, cell in part:
            least, low, first, middle, third, high, most = numbers[cell.anchor] * 1000
            ax.hlines(row, low, high, color=cell.look.hex, linewidth=1.4)
            ax.barh(row, third - first, 0.5, first, color=cell.look.hex, alpha=0.45, edgecolor=cell.look.hex)
            ax.plot(middle, row, linestyle="none", **marker(cell.look))
            ax.plot([least, most], [row, row], "|", color=MUTED, markersize=5, markeredgewidth=1)
        _log_where_wide(ax, [value * 1000 for _, cell in part for value in numbers[cell.anchor]])
        ax.set_xlabel("time of a step, ms")

    yield from row_charts(
        cells,
        draw,
        id=f"{prefix}-steps",
        name="Step times",
        subject=panel.title,
        caption="Steps of the slowest rank in all rounds. Marker: median; box: the middle half; line: 5th to 95th "
        "percentile; ticks: the fastest and the slowest step.",
        alt="The distribution of step times of every cell.",
        header=("strategy", "devices", "steps", "fastest", "5 %", "25 %", "median", "75 %", "95 %", "slowest"),
        rows=lambda cell: [
            [
                cell.name,
                cell.devices,
                f"{sum(map(len, steps[cell.anchor])):,}",
                *(shown(float(value), "s") for value in numbers[cell.anchor]),
            ]
        ],
    )


def step_series(panel: Panel, prefix: str) -> Iterator[Chart]:
    """Step times in the order in which they were taken, so that drift and outliers can be seen."""
    steps = _all_steps(panel)
    cells = [cell for cell in panel.cells if steps[cell.anchor]]
    medians = {cell.anchor: float(np.median(np.concatenate(steps[cell.anchor]))) for cell in cells}
    away = {
        cell.anchor: [np.asarray(series) / medians[cell.anchor] - 1 for series in steps[cell.anchor]] for cell in cells
    }

    def draw(ax: Axes, part: Placed) -> None:
        largest = np.quantile(
            np.abs(np.concatenate([series for _, cell in part for series in away[cell.anchor]])), 0.99
        )
        scale = float(np.clip(largest, 0.05, 1.0))
        for row, cell in part:
            rounds = away[cell.anchor]
            # Slower is up, and the axis points down.
            lines = [_course(number, series, -0.46 / scale, row, len(rounds)) for number, series in enumerate(rounds)]
            ax.add_collection(LineCollection(lines, colors=cell.look.hex, linewidths=0.9))
        rounds_shown = max(len(away[cell.anchor]) for _, cell in part)
        ax.set_xlim(0, rounds_shown)
        step = max(1, rounds_shown // 10)
        ax.set_xticks(
            [n + 0.5 for n in range(0, rounds_shown, step)], [str(n + 1) for n in range(0, rounds_shown, step)]
        )
        ax.vlines(range(1, rounds_shown), -0.5, len(part) - 0.5, color=GRID, linewidth=0.8, zorder=0)
        ax.grid(visible=False, axis="x")
        ax.set_xlabel(f"round; the height of a row is ± {scale * 100:.0f} % of the cell's median step")

    yield from row_charts(
        cells,
        draw,
        id=f"{prefix}-series",
        name="Step times in order",
        subject=panel.title,
        caption="Every round's steps from left to right, as deviation from the cell's median; up is slower. What is "
        "beyond its row is cut off at the edge. Of long rounds the extremes of short stretches are drawn.",
        alt="Step times of every cell in the order in which they were taken, round after round.",
        header=("strategy", "devices", "median step", "largest deviation", "median of first round", "of last round"),
        rows=lambda cell: [
            [
                cell.name,
                cell.devices,
                shown(medians[cell.anchor], "s"),
                f"{max(float(np.max(np.abs(series))) for series in away[cell.anchor]):.0%}",
                shown(float(np.median(steps[cell.anchor][0])), "s"),
                shown(float(np.median(steps[cell.anchor][-1])), "s"),
            ]
        ],
    )


def _all_steps(panel: Panel) -> dict[str, list[list[float]]]:
    return {
        cell.anchor: [steps for trial in cell.trials if (steps := speed.slowest_steps(trial))] for cell in panel.cells
    }


def _quantiles(rounds: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    steps = np.concatenate([np.asarray(each) for each in rounds])
    return np.asarray(np.quantile(steps, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)))


def _course(number: int, series: NDArray[np.float64], scale: float, row: float, rounds: int) -> NDArray[np.float64]:
    """A round's polyline within its row; of many steps, the least and the largest of each short stretch."""
    bins = max(3, _POINTS_A_ROW // rounds // 2)
    if len(series) > 2 * bins:
        parts = np.array_split(series, bins)
        series = np.array([extreme(part) for part in parts for extreme in (np.min, np.max)])
    x = number + 0.04 + 0.92 * (np.arange(len(series)) + 0.5) / len(series)
    return np.column_stack([x, row + np.clip(series * scale, -0.46, 0.46)])


def _log_where_wide(ax: Axes, values: Sequence[float]) -> None:
    """Zero is on the axis, unless values of very different sizes would be crowded there."""
    if min(values) > 0 and max(values) > 25 * min(values):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(7))
        ax.set_xlim(0, max(values) * 1.04 or 1.0)
