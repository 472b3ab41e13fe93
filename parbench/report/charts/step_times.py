"""Step times: how they are distributed in each cell."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import INK, MUTED, draw_segments, format_tick
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells, say_chosen
from parbench.report.drawing.marks import mark
from parbench.report.drawing.rows import PlacedCells, by_strategy, draw_rows
from parbench.report.panels import Panel
from parbench.text import with_unit


class StepTimes(PanelChart):
    """A box for each cell: quantiles of its step times over all rounds."""

    name = "steps"
    order = 30

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the cells whose step times were recorded."""
        every = [cell for cell in panel.cells if cell.trials]
        cells = [cell for cell in choose_cells(every) if cell.step_times]
        quantiles = {cell.anchor: _quantiles(cell.step_times) for cell in cells}

        def draw_boxes(ax: Axes, cells: PlacedCells) -> None:
            for group in by_strategy(cells):
                first = group[0][1]
                of = {y: quantiles[cell.anchor] * 1000 for y, cell in group}
                boxes = [_corners(y, times[2], times[4]) for y, times in of.items()]
                lines = [[(times[1], y), (times[5], y)] for y, times in of.items()]
                style: dict[str, Any] = {"facecolors": first.look.hex, "edgecolors": first.look.hex, "linewidths": 0.8}
                mark(draw_segments(ax, lines, color=first.look.hex, linewidth=1.4), first)
                ax.add_collection(mark(PolyCollection(boxes, alpha=0.45, **style), first))
                mark(ax.scatter([times[3] for times in of.values()], list(of), s=22, c=INK, marker="|"), first)
            ends = [(quantiles[cell.anchor][end] * 1000, y) for y, cell in cells for end in (0, 6)]
            ax.plot(*zip(*ends, strict=True), "|", color=MUTED, markersize=4, markeredgewidth=0.8)
            _set_scale(ax, [value * 1000 for _, cell in cells for value in quantiles[cell.anchor]])
            ax.set_xlabel("time of a step, ms")

        yield from draw_rows(
            panel,
            cells,
            draw_boxes,
            id=f"{prefix}-{cls.name}",
            name="Step times",
            caption="Steps of the slowest rank in all rounds. Dark tick and number: median; box: the middle half; "
            "line: 5th to 95th percentile; grey ticks: the fastest and the slowest step."
            + say_chosen(len(cells), len(every)),
            alt="The distribution of step times of every cell.",
            header=("strategy", "devices", "steps", "fastest", "5 %", "25 %", "median", "75 %", "95 %", "slowest"),
            table_rows=lambda cell: [
                [
                    cell.name,
                    cell.devices,
                    f"{sum(map(len, cell.step_times)):,}",
                    *(with_unit(float(value), "s") for value in quantiles[cell.anchor]),
                ]
            ],
            value=lambda cell: with_unit(float(quantiles[cell.anchor][3]), "s"),
        )


def _corners(y: float, left: float, right: float) -> list[tuple[float, float]]:
    """A box's corners in a row around `y`."""
    return [(left, y - 0.25), (right, y - 0.25), (right, y + 0.25), (left, y + 0.25)]


def _quantiles(rounds: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Minimum, 5 %, 25 %, median, 75 %, 95 % and maximum of all steps, in seconds."""
    steps = np.concatenate([np.asarray(times) for times in rounds])
    return np.asarray(np.quantile(steps, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)))


def _set_scale(ax: Axes, values: Sequence[float]) -> None:
    """A linear axis from zero; a logarithmic one where values differ so much that small ones would be crowded."""
    if min(values) > 0 and max(values) > 25 * min(values):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlim(0, max(values) * 1.04 or 1.0)
