"""Lines of a figure against the number of devices, one for each label."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from parbench.figures.definitions import FIGURES
from parbench.report.drawing.canvas import MUTED, marker_style
from parbench.report.drawing.runs import name_run, share_limits
from parbench.report.panels import CellView, Panel, select_with

MAX_LINE_ENDS = 12


def draw_lines(axes: Axes, panel: Panel, figure: str) -> None:
    """Draws a line for each label: its points, their confidence intervals, and the band between them."""
    lines = [cells for group in panel.by_label.values() if (cells := select_with(group, figure))]
    spread = min(0.05, 0.4 / max(1, len(lines)))
    for index, cells in enumerate(lines):
        look = cells[0].look
        # Lines are moved apart sideways, so that equal points do not hide one another.
        shift = 2 ** ((index - (len(lines) - 1) / 2) * spread)
        x = [cell.record.devices * shift for cell in cells]
        y = [cell.value(figure) or 0.0 for cell in cells]
        intervals = [_interval(cell, figure) for cell in cells]
        low, high = [each[0] for each in intervals], [each[1] for each in intervals]
        axes.vlines(x, low, high, color=look.hex, linewidth=1.1, alpha=0.85)
        if len(x) > 1:
            axes.fill_between(x, low, high, color=look.hex, alpha=0.1, linewidth=0)
        axes.plot(x, y, color=look.hex, linestyle=look.linestyle, **marker_style(look))
    _mark_node_boundary(axes, panel)


def set_device_axes(axes: Sequence[Axes], cells: Sequence[CellView]) -> None:
    """Sets the x axes to devices on a log2 scale, with a tick for each count of any run."""
    counts = sorted({cell.record.devices for cell in cells})
    # Where there are many counts, powers of two are enough.
    ticks = counts if len(counts) <= 8 else [count for count in counts if count & (count - 1) == 0]
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(count) for count in ticks])
        ax.set_xlim(min(counts) / 2**0.35, max(counts) * 2**0.35)
        ax.set_xlabel("devices")
    share_limits(axes)


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


def _interval(cell: CellView, figure: str) -> tuple[float, float]:
    """The figure's confidence interval; scaling efficiency has the speedup's, divided by the devices."""
    value = cell.value(figure) or 0.0
    if figure != "scaling_efficiency":
        return cell.interval(figure) or (value, value)
    low, high = cell.interval("speedup") or (value * cell.record.devices,) * 2
    return low / cell.record.devices, high / cell.record.devices


def _mark_node_boundary(axes: Axes, panel: Panel) -> None:
    boundary = node_boundary(panel)
    if boundary is None:
        return
    axes.axvline(boundary, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
    position: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
    for text, shift, side in (("one node", -4, "right"), ("several", 4, "left")):
        axes.annotate(text, (boundary, 1), (shift, -2), color=MUTED, fontsize=7.5, ha=side, **position)
