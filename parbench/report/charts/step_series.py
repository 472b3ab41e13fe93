"""Step times in the order in which they were measured, where drift and outliers show."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import GRID, draw_segments
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells, say_chosen
from parbench.report.drawing.marks import mark
from parbench.report.drawing.rows import PlacedCells, draw_rows
from parbench.report.panels import Panel
from parbench.text import with_unit

POINTS_PER_ROW = 160


_HALF_ROW = 0.46
"""How far a line may reach from the middle of its row; rows are 1 apart."""


class StepSeries(PanelChart):
    """A row for each cell: its steps, round after round, as deviations from the cell's median step."""

    name = "series"
    order = 40

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the cells whose step times were recorded."""
        every = [cell for cell in panel.cells if cell.trials]
        cells = [cell for cell in choose_cells(every) if cell.step_times]
        medians = {cell.anchor: float(np.median(np.concatenate(cell.step_times))) for cell in cells}
        deviations = {
            cell.anchor: [np.asarray(times) / medians[cell.anchor] - 1 for times in cell.step_times] for cell in cells
        }

        def draw_series(ax: Axes, cells: PlacedCells) -> None:
            values = np.concatenate([series for _, cell in cells for series in deviations[cell.anchor]])
            largest = float(np.clip(np.quantile(np.abs(values), 0.99), 0.05, 1.0))
            for y, cell in cells:
                rounds = deviations[cell.anchor]
                # The y axis points down, and slower steps are drawn higher.
                scale = -_HALF_ROW / largest
                lines = [_polyline(number, series, scale, y, len(rounds)) for number, series in enumerate(rounds)]
                mark(draw_segments(ax, lines, color=cell.look.hex, linewidth=0.9, clip_on=False), cell)
            round_count = max(len(deviations[cell.anchor]) for _, cell in cells)
            ax.set_xlim(0, round_count)
            ticks = range(0, round_count, max(1, round_count // 10))
            ax.set_xticks([number + 0.5 for number in ticks], [str(number + 1) for number in ticks])
            ends = [[(number, 0.0), (number, 1.0)] for number in range(1, round_count)]
            draw_segments(ax, ends, transform=ax.get_xaxis_transform(), color=GRID, linewidth=0.8, zorder=0)
            ax.grid(visible=False, axis="x")
            ax.set_xlabel(f"round; rows are ± {largest * 100:.0f} % high")

        yield from draw_rows(
            panel,
            cells,
            draw_series,
            id=f"{prefix}-{cls.name}",
            name="Step times in order",
            caption="Every round's steps from left to right, as deviation from the cell's median step; up is slower. "
            "What is beyond its row is cut off at the edge. Of long rounds the extremes of short stretches are drawn."
            + say_chosen(len(cells), len(every)),
            alt="Step times of every cell in the order in which they were taken, round after round.",
            header=(
                "strategy",
                "devices",
                "median step",
                "largest deviation",
                "median of first round",
                "of last round",
            ),
            table_rows=lambda cell: [
                [
                    cell.name,
                    cell.devices,
                    with_unit(medians[cell.anchor], "s"),
                    f"{max(float(np.max(np.abs(series))) for series in deviations[cell.anchor]):.0%}",
                    with_unit(float(np.median(cell.step_times[0])), "s"),
                    with_unit(float(np.median(cell.step_times[-1])), "s"),
                ]
            ],
        )


def _polyline(number: int, series: NDArray[np.float64], scale: float, y: float, rounds: int) -> list[list[float]]:
    """The points (x, y) of round `number` of `rounds` in a row around `y`.

    Of many steps, only the smallest and the largest of each short stretch are drawn.
    """
    stretches = max(3, POINTS_PER_ROW // rounds // 2)
    if len(series) > 2 * stretches:
        starts = np.arange(stretches) * len(series) // stretches
        series = np.column_stack([np.minimum.reduceat(series, starts), np.maximum.reduceat(series, starts)]).ravel()
    x = number + 0.04 + 0.92 * (np.arange(len(series)) + 0.5) / len(series)
    points: list[list[float]] = np.column_stack([x, y + np.clip(series * scale, -_HALF_ROW, _HALF_ROW)]).tolist()
    return points
