"""The speed of every cell as ranked dots, where the lines of scaling charts are too many to be followed."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import ComparisonChart
from parbench.report.drawing.canvas import IDEAL_LINE
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells, is_crowded, say_chosen
from parbench.report.drawing.rows import PlacedCells, draw_dots, draw_rows
from parbench.report.panels import CellView, Panel

MAX_CELLS = 120
"""Of more cells, only the fastest of each label are drawn."""


class Ranking(ComparisonChart):
    """A row for each cell with its speed and interval, strategies and their cells by falling speed."""

    name = "ranking"
    order = 5

    @classmethod
    def draw(cls, panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
        """A chart of each run; none where there are so few labels that the lines against devices say it all."""
        for number, panel in enumerate(panels, start=1):
            yield from _draw_panel(panel, f"{prefix}-{cls.name}" + f"-{number}" * (number > 1))


def _draw_panel(panel: Panel, id_: str) -> Iterator[Chart]:
    figure = FIGURES["speedup" if panel.base is not None else "tokens_per_s"]
    every = panel.comparable_with(figure.name)
    cells = choose_cells(every, MAX_CELLS)
    if not is_crowded(every):
        return

    def value(cell: CellView) -> float:
        return cell.value(figure.name) or 0.0

    def draw_points(ax: Axes, cells: PlacedCells) -> None:
        draw_dots(ax, cells, value, lambda cell: cell.interval(figure.name))
        if figure.name == "speedup":
            ax.axvline(1, **IDEAL_LINE, zorder=0.6)
        # An interval may be so wide that dots would have no room.
        highest = max(value(cell) for _, cell in cells)
        ax.set_xlim(
            0, min(1.5 * highest, 1.05 * max((cell.interval(figure.name) or (0.0, highest))[1] for _, cell in cells))
        )
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda each, _: figure.text(each)))
        ax.set_xlabel(f"{figure.title} over one device" if figure.name == "speedup" else figure.title)

    yield from draw_rows(
        panel,
        cells,
        draw_points,
        id=id_,
        name="Every cell by speed" if len(cells) == len(every) else "Cells by speed",
        caption=f"{figure.title.capitalize()} with 95 % confidence intervals over rounds; strategies by their "
        "fastest cell. Hollow: emulated, oversubscribed, inexact or undecided. The dashed line is one device."
        + say_chosen(len(cells), len(every)),
        alt=f"{figure.title} of every cell, ranked within its strategy.",
        header=("strategy", "devices", figure.title, FIGURES["tokens_per_s"].title),
        table_rows=lambda cell: [
            [
                cell.name,
                cell.devices,
                *(FIGURES[each].with_interval(cell.row) for each in (figure.name, "tokens_per_s")),
            ]
        ],
        value=lambda cell: figure.text(cell.row[figure.name]),
    )
