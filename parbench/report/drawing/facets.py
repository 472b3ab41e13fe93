"""Small multiples: a small plot for each strategy with its lines in colour, and all others in grey behind them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parbench.report.drawing.canvas import GRID, MUTED, WIDTH, add_axes, draw_segments, make_figure, set_margins
from parbench.report.drawing.marks import mark
from parbench.report.drawing.series import Series, draw_behind, draw_series, group_series
from parbench.report.panels import shorten
from parbench.text import plain

COLUMNS = 3

MAX_TICKS = 4

_ROW_HEIGHT, _GAP = 1.30, 0.38
"""Inches from one row of plots to the next, and how much of it the next row's titles take."""


_LEFT = 0.66


def draw_facets(
    series: Sequence[Series],
    set_axes: Callable[[Sequence[Axes]], None],
    note: Callable[[Sequence[Series]], str],
    *,
    x_label: str,
    y_label: str,
    markers: int = 1,
) -> Figure:
    """Draws a plot for each strategy.

    `set_axes` sets scales, limits and ticks of all plots, and `note` writes what stands below a strategy's name.
    """
    groups = group_series(series)
    rows = math.ceil(len(groups) / COLUMNS)
    figure = make_figure(_ROW_HEIGHT * rows + 0.42)
    set_margins(figure, left=_LEFT, right=0.08, bottom=0.42, top=_GAP)
    plot_height = _ROW_HEIGHT - _GAP
    figure.subplots_adjust(wspace=0.10, hspace=_GAP / plot_height)
    axes = [add_axes(figure, rows, COLUMNS, number + 1) for number in range(len(groups))]
    for ax, (name, group) in zip(axes, groups.items(), strict=True):
        draw_behind(ax, [each for each in series if each not in group])
        draw_series(ax, group, markers=markers, small=True)
        title: Any = {"x": 0.0, "transform": ax.transAxes, "va": "bottom", "fontsize": 8.0}
        mark(ax.text(y=1.15, s=shorten(plain(name), 20), fontweight="bold", **title), group[0].cell)
        ax.text(y=1.0, s=note(group), color=MUTED, **title)
    set_axes(axes)
    _share_ticks(axes)
    figure.text(_LEFT / WIDTH, 0.06 / figure.get_figheight(), x_label, fontsize=8.5)
    figure.text(0.02 / WIDTH, 0.5, y_label, fontsize=8.5, rotation=90, va="center")
    return figure


def _share_ticks(axes: Sequence[Axes]) -> None:
    """Draws the first plot's grid in all of them, and labels it at the left and at the bottom alone.

    Ticks are by far the slowest part of a plot. So few are left on the y axes that their labels do not touch.
    """
    first = axes[0]
    x, labels = list(first.get_xticks()), [label.get_text() for label in first.get_xticklabels()]
    (left, right), (low, high) = first.get_xlim(), first.get_ylim()
    inside = [tick for tick in first.get_yticks() if low <= tick <= high]
    y = inside[:: math.ceil(len(inside) / MAX_TICKS)]
    grid = [[(tick, low), (tick, high)] for tick in x if left <= tick <= right]
    grid += [[(left, tick), (right, tick)] for tick in y]
    for number, ax in enumerate(axes):
        ax.grid(visible=False)
        draw_segments(ax, grid, color=GRID, linewidth=0.7, zorder=0, clip_on=False)
        ax.set_yticks(y if number % COLUMNS == 0 else [])
        if number + COLUMNS >= len(axes):
            ax.set_xticks(x, labels)
        else:
            ax.set_xticks([])
        ax.set(xlim=(left, right), ylim=(low, high), xlabel="", ylabel="")
        ax.tick_params(labelsize=8)
