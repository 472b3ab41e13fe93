"""A plain chart for every figure that has none of its own kind."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from parbench.figures.base import Figure
from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import INK, marker_style
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.rows import PlacedCells, draw_rows
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
                yield from _draw_figure(panel, cells, prefix, FIGURES[name])


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _draw_figure(panel: Panel, cells: Sequence[CellView], prefix: str, figure: Figure) -> Iterator[Chart]:
    ideals = {cell.anchor: ideal for cell in cells if figure.ideal and (ideal := cell.value(figure.ideal)) is not None}

    def draw_points(ax: Axes, cells: PlacedCells) -> None:
        for y, cell in cells:
            interval = cell.interval(figure.name)
            if interval:
                ax.hlines(y, *interval, color=cell.look.hex, linewidth=1.4)
            ax.plot(cell.value(figure.name) or 0.0, y, linestyle="none", **marker_style(cell.look))
            if cell.anchor in ideals:
                ax.plot(ideals[cell.anchor], y, **_IDEAL_TICK)
        if figure.unit == "%":
            ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: figure.text(value)))
        ax.set_xlabel(figure.title)
        if ideals:
            handle = Line2D([], [], label=f"ideal: {figure.ideal_meaning}", **_IDEAL_TICK)
            ax.figure.legend(handles=[handle], loc="outside lower center")

    sentences = [figure.meaning]
    sentences += [f"{figure.better.capitalize()} is better."] if figure.better else []
    sentences += [f"The tick is the ideal: {figure.ideal_meaning}."] if ideals else []
    yield from draw_rows(
        cells,
        draw_points,
        id=f"{prefix}-{figure.name.replace('_', '-')}",
        name=figure.title,
        subject=panel.title,
        caption=" ".join(sentences),
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
    )
