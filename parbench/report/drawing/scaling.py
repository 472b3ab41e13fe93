"""Lines of a figure against the number of devices, one for each label: in one plot, or in a small one a strategy."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parbench.figures.definitions import FIGURES
from parbench.report.drawing.canvas import MUTED, add_legend, report_style
from parbench.report.drawing.crowd import is_crowded
from parbench.report.drawing.ends import label_ends, name_width
from parbench.report.drawing.facets import draw_facets
from parbench.report.drawing.runs import collect_cells, make_axes, name_run, share_limits
from parbench.report.drawing.series import Series, draw_series, series_of
from parbench.report.panels import CellView, Panel, select_with

MAX_LINE_ENDS = 12

_APART = 0.05
"""Lines are moved apart sideways by this many powers of two."""


def draw_scaling(
    panels: Sequence[Panel],
    figure: str,
    draw_ideal: Callable[[Axes, Panel], None],
    set_values: Callable[[Sequence[Axes], Sequence[CellView]], None],
    y_label: str,
    note: Callable[[Sequence[Series]], str],
) -> Iterator[tuple[Sequence[Panel], Figure]]:
    """Draws one figure of all panels or, where there are too many lines for it, one of each; with whose it is.

    `draw_ideal` draws what would be ideal, `set_values` sets the axes of values, and `note` is what small plots say.
    """
    cells = collect_cells(panels, figure)
    if not is_crowded(cells):
        if panels:
            yield panels, _draw_together(panels, figure, cells, draw_ideal, set_values, y_label)
        return
    for panel in panels:

        def set_axes(axes: Sequence[Axes], panel: Panel = panel) -> None:
            for ax in axes:
                draw_ideal(ax, panel)
            set_values(axes, panel.comparable_with(figure))
            set_device_axes(axes, panel.comparable_with(figure), [panel] * len(axes))

        with report_style():
            drawing = draw_facets(_lines_of(panel, figure), set_axes, note, x_label="devices", y_label=y_label)
        yield [panel], drawing


def describe_facets(panels: Sequence[Panel], figure: str, value: str) -> str:
    """A sentence on how small plots, which note this `value`, are read; empty where all lines stand in one."""
    if not is_crowded(collect_cells(panels, figure)):
        return ""
    return f" A plot for each strategy, with the others in grey; below its name, its {value}."


def _draw_together(
    panels: Sequence[Panel],
    figure: str,
    cells: Sequence[CellView],
    draw_ideal: Callable[[Axes, Panel], None],
    set_values: Callable[[Sequence[Axes], Sequence[CellView]], None],
    y_label: str,
) -> Figure:
    """One plot a run. The lines of a single run have their names beside them, those of several a common legend."""
    with report_style():
        lines = [_lines_of(panel, figure) for panel in panels]
        drawing, axes = make_axes(panels, right=name_width(lines[0]) if len(panels) == 1 else 0.0)
        for panel, series, ax in zip(panels, lines, axes, strict=True):
            draw_ideal(ax, panel)
            draw_series(ax, series, apart=_APART)
        set_values(axes, cells)
        axes[0].set_ylabel(y_label)
        set_device_axes(axes, cells, panels)
        if len(panels) == 1:
            label_ends(axes[0], lines[0])
        else:
            add_legend(drawing, cells)
    return drawing


def _lines_of(panel: Panel, figure: str) -> list[Series]:
    """A line for each label that has the figure."""
    groups = [cells for group in panel.by_label.values() if (cells := select_with(group, figure))]
    return [series_of(cells, figure, [cell.record.devices for cell in cells]) for cells in groups]


def set_device_axes(axes: Sequence[Axes], cells: Sequence[CellView], panels: Sequence[Panel] = ()) -> None:
    """Sets the x axes to devices on a log2 scale, with a tick for each count of any run.

    Of each of the `panels`, whose axes these are, it marks where several nodes begin.
    """
    counts = sorted({cell.record.devices for cell in cells})
    # Where there are many counts, powers of two are enough.
    ticks = counts if len(counts) <= 8 else [count for count in counts if count & (count - 1) == 0]
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(count) for count in ticks])
        ax.set_xlim(min(counts) / 2**0.35, max(counts) * 2**0.35)
        ax.set_xlabel("devices")
    share_limits(axes)
    for panel, ax in zip(panels, axes, strict=False):
        _mark_node_boundary(ax, panel)


def node_boundary(panel: Panel) -> float | None:
    """The number of devices at which several nodes begin: the geometric mean of the most devices on one node and the
    fewest on several. None unless the panel has both.
    """
    one_node = [cell.record.devices for cell in panel.comparable if cell.record.nodes == 1]
    several_nodes = [cell.record.devices for cell in panel.comparable if cell.record.nodes > 1]
    return math.sqrt(max(one_node) * min(several_nodes)) if one_node and several_nodes else None


def describe_line_ends(panels: Sequence[Panel], figure: str) -> str:
    """Describes a line chart in words: where each line ends."""
    runs = []
    for panel in panels:
        lines = [select_with(cells, figure) for cells in panel.by_label.values()]
        ends = [
            f"{cells[-1].place}: {FIGURES[figure].with_interval(cells[-1].row)}"
            for cells in lines[:MAX_LINE_ENDS]
            if cells
        ]
        more = f", and {len(lines) - MAX_LINE_ENDS} more" if len(lines) > MAX_LINE_ENDS else ""
        runs.append(f"{name_run(panel, panels)}{', '.join(ends)}{more}")
    return f"{FIGURES[figure].title} against devices. At the most devices: {'; '.join(runs)}."


def _mark_node_boundary(axes: Axes, panel: Panel) -> None:
    boundary = node_boundary(panel)
    if boundary is None:
        return
    axes.axvline(boundary, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
    position: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
    for text, shift, side in (("one node", -4, "right"), ("several", 4, "left")):
        axes.annotate(text, (boundary, 1), (shift, -2), color=MUTED, fontsize=7.5, ha=side, **position)
