"""A plain chart for every figure that has none of its own kind."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

from matplotlib import figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from parbench.figures.base import Figure
from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import INK, place_below
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells, say_chosen
from parbench.report.drawing.rows import PlacedCells, draw_dots, draw_rows
from parbench.report.panels import CellView, Panel, shared_figures

_IDEAL_TICK: Any = {"color": INK, "marker": "|", "markersize": 11, "markeredgewidth": 1.4, "linestyle": "none"}


class OtherFigures(PanelChart):
    """A row for each cell with its value and interval, in a chart for each figure."""

    name = "other-figures"
    order = 90

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """A chart for each figure that two cells or more have: the value of one cell alone is in the table."""
        for name in shared_figures(panel.cells):
            cells = [cell for cell in panel.cells if _is_finite(cell.value(name))]
            if "charts" in FIGURES[name].shown_in and len(cells) > 1:
                yield from draw_figure(panel, cells, prefix, FIGURES[name])


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def draw_figure(panel: Panel, every: Sequence[CellView], prefix: str, figure: Figure) -> Iterator[Chart]:
    """Draws a figure of these cells, all of which have it; of too many, the fastest of each label."""
    cells = choose_cells(every)
    ideals = {cell.anchor: ideal for cell in cells if figure.ideal and (ideal := cell.value(figure.ideal)) is not None}

    def value(cell: CellView) -> float:
        return cell.value(figure.name) or 0.0

    def draw_points(ax: Axes, cells: PlacedCells) -> None:
        draw_dots(ax, cells, value, lambda cell: cell.interval(figure.name))
        ticks = [(ideals[cell.anchor], y) for y, cell in cells if cell.anchor in ideals]
        if ticks:
            ax.plot(*zip(*ticks, strict=True), **_IDEAL_TICK)
            handle = Line2D([], [], **_IDEAL_TICK)
            place_below(cast("mpl.Figure", ax.figure), [handle], [f"ideal: {figure.ideal_meaning}"], 1)
        if figure.unit == "%":
            ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda each, _: figure.text(each)))
        ax.set_xlabel(figure.title)

    sentences = [figure.meaning]
    sentences += [f"{figure.better.capitalize()} is better."] if figure.better else []
    sentences += [f"The tick is the ideal: {figure.ideal_meaning}."] if ideals else []
    yield from draw_rows(
        panel,
        cells,
        draw_points,
        id=f"{prefix}-{figure.name.replace('_', '-')}",
        name=figure.title,
        caption=" ".join(sentences) + say_chosen(len(cells), len(every)),
        alt=f"{figure.title} of every cell.",
        header=("strategy", "devices", figure.title, *(["ideal"] if ideals else [])),
        table_rows=lambda cell: [
            [
                cell.name,
                cell.devices,
                figure.with_interval(cell.row),
                *([figure.text(ideals.get(cell.anchor))] if ideals else []),
            ]
        ],
        value=lambda cell: figure.text(value(cell)),
        footer=0.2 * bool(ideals),
    )
