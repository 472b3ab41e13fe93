"""Charts with a row for each cell."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parbench.report.drawing.canvas import report_style
from parbench.report.drawing.chart import Chart
from parbench.report.panels import CellView

MAX_ROWS = 40


PlacedCells = Sequence[tuple[float, CellView]]
"""Cells, each with the y coordinate of its row's middle. The y axis points down; a row is usually 1 high."""


def draw_rows(
    cells: Sequence[CellView],
    draw: Callable[[Axes, PlacedCells], None],
    *,
    id: str,  # noqa: A002 - it is the chart's field
    name: str,
    subject: str,
    caption: str,
    alt: str,
    header: Sequence[str],
    table_rows: Callable[[CellView], list[list[str]]],
    row_height: Callable[[CellView], float] = lambda _: 1.0,
) -> Iterator[Chart]:
    """Draws a chart for every `MAX_ROWS` cells, because one of hundreds of rows can be neither read nor printed.

    `draw` fills the axes, `row_height` is how high a cell's row is, and `table_rows` gives its rows of the table.
    """
    for start in range(0, len(cells), MAX_ROWS):
        part = cells[start : start + MAX_ROWS]
        edges = [-0.5, *(-0.5 + end for end in accumulate(map(row_height, part)))]
        middles = [(above + below) / 2 for above, below in pairwise(edges)]
        with report_style():
            figure = Figure(figsize=(8.6, 0.95 + 0.3 * (edges[-1] - edges[0])))
            ax = figure.subplots()
            draw(ax, list(zip(middles, part, strict=True)))
            ax.set_ylim(edges[-1], edges[0])
            ax.set_yticks(middles, [cell.short_place(54) for cell in part], fontsize=8)
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
            rows=[row for cell in part for row in table_rows(cell)],
            figure=figure,
            wide=True,
        )
