"""Step times: how they are distributed in each cell."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import MUTED, format_tick, marker_style
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.rows import PlacedCells, draw_rows
from parbench.report.panels import Panel
from parbench.text import with_unit


class StepTimes(PanelChart):
    """A box for each cell: quantiles of its step times over all rounds."""

    name = "steps"
    order = 30

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the cells whose step times were recorded."""
        cells = [cell for cell in panel.cells if cell.step_times]
        quantiles = {cell.anchor: _quantiles(cell.step_times) for cell in cells}

        def draw_boxes(ax: Axes, cells: PlacedCells) -> None:
            for y, cell in cells:
                fastest, low, first, median, third, high, slowest = quantiles[cell.anchor] * 1000
                ax.hlines(y, low, high, color=cell.look.hex, linewidth=1.4)
                ax.barh(y, third - first, 0.5, first, color=cell.look.hex, alpha=0.45, edgecolor=cell.look.hex)
                ax.plot(median, y, linestyle="none", **marker_style(cell.look))
                ax.plot([fastest, slowest], [y, y], "|", color=MUTED, markersize=5, markeredgewidth=1)
            _set_scale(ax, [value * 1000 for _, cell in cells for value in quantiles[cell.anchor]])
            ax.set_xlabel("time of a step, ms")

        yield from draw_rows(
            cells,
            draw_boxes,
            id=f"{prefix}-{cls.name}",
            name="Step times",
            subject=panel.title,
            caption="Steps of the slowest rank in all rounds. Marker: median; box: the middle half; line: 5th to 95th "
            "percentile; ticks: the fastest and the slowest step.",
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
        )


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
        ax.xaxis.set_major_locator(MaxNLocator(7))
        ax.set_xlim(0, max(values) * 1.04 or 1.0)
