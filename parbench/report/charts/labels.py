"""Names beside points, without one lying on another or on a point."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from parbench.report.charts.canvas import GROUND

_PLACES = (
    (0, 9, "center", "bottom"), (9, 0, "left", "center"), (-9, 0, "right", "center"), (0, -9, "center", "top"),
    (8, 8, "left", "bottom"), (-8, 8, "right", "bottom"), (8, -8, "left", "top"), (-8, -8, "right", "top"),
)  # fmt: skip


_PAPER: Any = {"facecolor": GROUND, "edgecolor": "none", "alpha": 0.8, "pad": 0.8}


def place_labels(figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]], size: float = 7.5) -> None:
    """Writes each name where it is free around its point, or else not at all: the table has it."""
    figure.draw_without_rendering()
    inside = axes.get_window_extent()
    pixel = figure.dpi / 72
    dots = [data for line in axes.lines if len(data := np.asarray(line.get_xydata())) == 1]
    marks = [axes.transData.transform(dot[0]) for dot in dots]
    taken = [Bbox.from_bounds(x - 5 * pixel, y - 5 * pixel, 10 * pixel, 10 * pixel) for x, y in marks]
    for x, y, name in points:
        for right, up, horizontal, vertical in _PLACES:
            label = axes.annotate(
                name,
                (x, y),
                (right, up),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=size,
                bbox=_PAPER,
            )
            box = label.get_window_extent()
            if inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1) and not box.count_overlaps(taken):
                taken.append(box)
                break
            label.remove()
