"""Charts with a row for each cell: memory of every rank, step times and their course, and any further figure."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from parbench.report.canvas import GRID, INK, MUTED, Chart, drawing, marker
from parbench.report.charts import compact
from parbench.report.view import CellView, Panel, shared_figures
from parbench.results import figures
from parbench.results.export import with_interval
from parbench.results.glossary import FIGURES
from parbench.results.units import MIB, shown

MAX_ROWS = 40
_KINDS: tuple[dict[str, Any], ...] = ({"alpha": 0.85}, {"alpha": 0.4, "hatch": "////"}, {"alpha": 0.2, "hatch": "...."})
_POINTS_A_ROW = 240

# What has a chart of its own; every other figure of the registry gets a plain one.
_CHARTED = {
    "tokens_per_s", "speedup", "scaling_efficiency", "step_time_s", "peak_memory_bytes", "parity_deviation",
    "differing_sequences",
}  # fmt: skip

Draw = Callable[[Axes, Sequence[CellView]], None]


def memory(panel: Panel, prefix: str) -> Iterator[Chart]:
    """Peak memory of every rank, never summed, stacked by kind where it is known."""
    ranks = {cell.anchor: _by_rank(cell) for cell in panel.cells}
    cells = [cell for cell in panel.cells if ranks[cell.anchor]]
    kinds = list(dict.fromkeys(kind for rank in ranks.values() for parts in rank.values() for kind in parts))

    def draw(ax: Axes, part: Sequence[CellView]) -> None:
        for row, cell in enumerate(part):
            by_rank = ranks[cell.anchor]
            height = 0.8 / len(by_rank)
            for index, parts in enumerate(by_rank.values()):
                y, left = row - 0.4 + height * (index + 0.5), 0.0
                for kind, size in parts.items():
                    style = _KINDS[min(kinds.index(kind), len(_KINDS) - 1)]
                    edge: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.4 if len(by_rank) < 5 else 0}
                    ax.barh(y, size / MIB, height * 0.86, left, color=cell.look.hex, **edge, **style)
                    left += size / MIB
        ax.set_xlabel("peak memory of each rank, MiB")
        if len(kinds) > 1:
            patches = [Patch(facecolor=MUTED, label=kind, **style) for kind, style in zip(kinds, _KINDS, strict=False)]
            ax.figure.legend(handles=patches, loc="outside lower center", ncols=3)

    yield from _charts(
        cells,
        draw,
        id=f"{prefix}-memory",
        name="Peak memory by rank",
        subject=panel.title,
        caption="A bar for each rank, from rank 0 at the top; the median over rounds. "
        f"{FIGURES['peak_memory_bytes'].meaning.partition('rounds. ')[2]}",
        alt="Bars of the peak memory of every rank.",
        header=("strategy", "devices", "rank", *kinds),
        rows=lambda cell: [
            [cell.name, cell.devices, str(rank), *(shown(parts.get(kind), "bytes") for kind in kinds)]
            for rank, parts in ranks[cell.anchor].items()
        ],
        tall=max((len(found) for found in ranks.values()), default=1),
    )


def step_times(panel: Panel, prefix: str) -> Iterator[Chart]:
    """How step times are distributed in each cell, over all rounds."""
    steps = _all_steps(panel)
    cells = [cell for cell in panel.cells if steps[cell.anchor]]
    numbers = {cell.anchor: _quantiles(steps[cell.anchor]) for cell in cells}

    def draw(ax: Axes, part: Sequence[CellView]) -> None:
        for row, cell in enumerate(part):
            least, low, first, middle, third, high, most = numbers[cell.anchor] * 1000
            ax.hlines(row, low, high, color=cell.look.hex, linewidth=1.4)
            ax.barh(row, third - first, 0.5, first, color=cell.look.hex, alpha=0.45, edgecolor=cell.look.hex)
            ax.plot(middle, row, linestyle="none", **marker(cell.look))
            ax.plot([least, most], [row, row], "|", color=MUTED, markersize=5, markeredgewidth=1)
        _log_where_wide(ax, [value * 1000 for cell in part for value in numbers[cell.anchor]])
        ax.set_xlabel("time of a step, ms")

    yield from _charts(
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

    def draw(ax: Axes, part: Sequence[CellView]) -> None:
        largest = np.quantile(np.abs(np.concatenate([series for cell in part for series in away[cell.anchor]])), 0.99)
        scale = float(np.clip(largest, 0.05, 1.0))
        for row, cell in enumerate(part):
            rounds = away[cell.anchor]
            # Slower is up, and the axis points down.
            lines = [_course(number, series, -0.46 / scale, row, len(rounds)) for number, series in enumerate(rounds)]
            ax.add_collection(LineCollection(lines, colors=cell.look.hex, linewidths=0.9))
        rounds_shown = max(len(away[cell.anchor]) for cell in part)
        ax.set_xlim(0, rounds_shown)
        step = max(1, rounds_shown // 10)
        ax.set_xticks(
            [n + 0.5 for n in range(0, rounds_shown, step)], [str(n + 1) for n in range(0, rounds_shown, step)]
        )
        ax.vlines(range(1, rounds_shown), -0.5, len(part) - 0.5, color=GRID, linewidth=0.8, zorder=0)
        ax.grid(visible=False, axis="x")
        ax.set_xlabel(f"round; the height of a row is ± {scale * 100:.0f} % of the cell's median step")

    yield from _charts(
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


def further(panel: Panel, prefix: str) -> Iterator[Chart]:
    """Every other figure of the registry that this run has, whatever it is."""
    for name in shared_figures(panel.cells):
        if name not in _CHARTED:
            yield from _figure(panel, prefix, name)


def _figure(panel: Panel, prefix: str, name: str) -> Iterator[Chart]:
    figure = FIGURES[name]
    cells = [cell for cell in panel.cells if np.isfinite(cell.value(name) or np.nan) or cell.value(name) == 0]

    def draw(ax: Axes, part: Sequence[CellView]) -> None:
        for row, cell in enumerate(part):
            interval = cell.interval(name)
            if interval:
                ax.hlines(row, *interval, color=cell.look.hex, linewidth=1.4)
            ax.plot(cell.value(name) or 0.0, row, linestyle="none", **marker(cell.look))
        if figure.unit == "%":
            ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: figure.shown(value)))
        ax.set_xlabel(figure.title)

    yield from _charts(
        cells,
        draw,
        id=f"{prefix}-{name.replace('_', '-')}",
        name=figure.title,
        subject=panel.title,
        caption=f"{figure.meaning}{f' {figure.better.capitalize()} is better.' if figure.better else ''}",
        alt=f"{figure.title} of every cell.",
        header=("strategy", "devices", figure.title),
        rows=lambda cell: [[cell.name, cell.devices, with_interval(name, cell.row)]],
    )


def _charts(
    cells: Sequence[CellView],
    draw: Draw,
    *,
    id: str,  # noqa: A002 - it is the chart's field
    name: str,
    subject: str,
    caption: str,
    alt: str,
    header: Sequence[str],
    rows: Callable[[CellView], list[list[str]]],
    tall: int = 1,
) -> Iterator[Chart]:
    """A chart for every `MAX_ROWS` cells: a drawing of hundreds of rows can be neither read nor printed."""
    for start in range(0, len(cells), MAX_ROWS):
        part = cells[start : start + MAX_ROWS]
        with drawing():
            row_height = 0.3 + 0.07 * min(tall - 1, 7)
            figure = Figure(figsize=(8.6, 0.95 + row_height * len(part)))
            ax = figure.subplots()
            draw(ax, part)
            ax.set_ylim(len(part) - 0.5, -0.5)
            ax.set_yticks(range(len(part)), [cell.short_place(50) for cell in part], fontsize=8)
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        span = f" (cells {start + 1} to {start + len(part)} of {len(cells)})" if len(cells) > MAX_ROWS else ""
        yield Chart(
            id=id if start == 0 else f"{id}-{start + 1}",
            name=name,
            subject=subject + span,
            caption=caption,
            alt=f"{alt} The numbers are in the table below.",
            header=header,
            rows=[row for cell in part for row in rows(cell)],
            figure=figure,
            wide=True,
        )


def _by_rank(cell: CellView) -> dict[int, dict[str, float]]:
    """The median over rounds of each kind of memory on each rank."""
    rounds = [figures.memory_by_rank(trial) for trial in cell.trials]
    ranks = sorted({rank for found in rounds for rank in found})
    medians: dict[int, dict[str, float]] = {}
    for rank in ranks:
        mine = [found[rank] for found in rounds if rank in found]
        kinds = dict.fromkeys(kind for found in mine for kind in found)
        medians[rank] = {kind: float(np.median([found.get(kind, 0) for found in mine])) for kind in kinds}
    return medians


def _all_steps(panel: Panel) -> dict[str, list[list[float]]]:
    return {
        cell.anchor: [steps for trial in cell.trials if (steps := figures.slowest_steps(trial))] for cell in panel.cells
    }


def _quantiles(rounds: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    steps = np.concatenate([np.asarray(each) for each in rounds])
    return np.asarray(np.quantile(steps, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)))


def _course(number: int, series: NDArray[np.float64], scale: float, row: int, rounds: int) -> NDArray[np.float64]:
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
