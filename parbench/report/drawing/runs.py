"""Charts in which runs stand side by side: axes for each run with the same scales, and the table's columns."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from parbench.figures.definitions import FIGURES
from parbench.report.drawing.canvas import add_axes, format_tick, make_figure, set_margins
from parbench.report.panels import CellView, Panel, shorten


def make_axes(panels: Sequence[Panel], *, right: float = 0.0, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """Makes a figure with axes for each run, at most three in a row; several have the run's name above them.

    The figure of a single run is `height` inches high and leaves `right` of them for names beside the axes.
    """
    if len(panels) == 1:
        figure = make_figure(height)
        set_margins(figure, left=0.76, right=max(0.12, right), bottom=0.46, top=0.1)
        return figure, [add_axes(figure)]
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    axes: list[Axes] = [ax for row in grid for ax in row]
    for surplus in axes[len(panels) :]:
        surplus.remove()
    for panel, ax in zip(panels, axes, strict=False):
        ax.set_title(shorten(panel.run, 44), fontsize=8.5)
    return figure, axes[: len(panels)]


def set_speed_axis(axes: Sequence[Axes], cells: Sequence[CellView], *, log: bool) -> None:
    """Sets the y axes to tokens/s, with ticks that suit the speeds of all runs."""
    for ax in axes:
        if log:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=_choose_ticks(cells)))
            ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))


def share_limits(axes: Sequence[Axes]) -> None:
    """Gives the axes of every run the same limits, so that they can be compared by eye."""
    accessors: list[tuple[Callable[[Axes], tuple[float, float]], Callable[[Axes, float, float], Any]]] = [
        (lambda ax: ax.get_xlim(), lambda ax, low, high: ax.set_xlim(low, high)),
        (lambda ax: ax.get_ylim(), lambda ax, low, high: ax.set_ylim(low, high)),
    ]
    for get, set_ in accessors:
        limits = [get(ax) for ax in axes]
        for ax in axes:
            set_(ax, min(low for low, _ in limits), max(high for _, high in limits))


def collect_cells(panels: Sequence[Panel], figure: str) -> list[CellView]:
    """The comparable cells of all runs that have the figure."""
    return [cell for panel in panels for cell in panel.comparable_with(figure)]


def key_columns(panels: Sequence[Panel]) -> tuple[str, ...]:
    """The table's first columns, which say what a row is about."""
    return (*(("run",) if len(panels) > 1 else ()), "strategy", "devices")


def key_values(cell: CellView, panel: Panel, panels: Sequence[Panel]) -> list[str]:
    """What a cell's row has in the `key_columns`."""
    return [*([panel.run] if len(panels) > 1 else []), cell.name, cell.devices]


def tabulate(panels: Sequence[Panel], *figures: str) -> list[list[str]]:
    """A row with these figures for each comparable cell that has the first of them."""
    return [
        [*key_values(cell, panel, panels), *(FIGURES[figure].with_interval(cell.row) for figure in figures)]
        for panel in panels
        for cell in panel.comparable_with(figures[0])
    ]


def name_run(panel: Panel, panels: Sequence[Panel]) -> str:
    """The run's name as the beginning of a text; empty where there is only one run."""
    return f"{panel.run}: " if len(panels) > 1 else ""


def count_left_out(panels: Sequence[Panel]) -> str:
    """A sentence on how many cells are not drawn; empty where all are."""
    count = sum(len(panel.left_out) for panel in panels)
    if not count:
        return ""
    cells = "cell that is" if count == 1 else "cells that are"
    return f" Not drawn: {count} {cells} not comparable; the table says why."


def _choose_ticks(cells: Sequence[CellView]) -> tuple[float, ...]:
    """A logarithmic axis' ticks within a decade: more of them where speeds span less than one."""
    speeds = [cell.value("tokens_per_s") or 1.0 for cell in cells]
    return (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8) if max(speeds) / min(speeds) < 6 else (1, 2, 5)
