"""Names beside points, placed so that none covers another name or a point."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from parbench.report.drawing.canvas import GROUND

# Offsets in points (right, up) with the name's horizontal and vertical alignment, the best place first.
_PLACES = (
    (0, 9, "center", "bottom"), (9, 0, "left", "center"), (-9, 0, "right", "center"), (0, -9, "center", "top"),
    (8, 8, "left", "bottom"), (-8, 8, "right", "bottom"), (8, -8, "left", "top"), (-8, -8, "right", "top"),
)  # fmt: skip


_BACKGROUND: Any = {"facecolor": GROUND, "edgecolor": "none", "alpha": 0.8, "pad": 0.8}


def place_labels(figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]], size: float = 7.5) -> None:
    """Writes the name of each point (x, y, name) where there is room around it.

    A name without room is left out: the table has it. `size` is the font's, in points.
    """
    figure.draw_without_rendering()
    inside = axes.get_window_extent()
    pixel = figure.dpi / 72
    markers = [data for line in axes.lines if len(data := np.asarray(line.get_xydata())) == 1]
    centres = [axes.transData.transform(marker[0]) for marker in markers]
    occupied = [Bbox.from_bounds(x - 5 * pixel, y - 5 * pixel, 10 * pixel, 10 * pixel) for x, y in centres]
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
                bbox=_BACKGROUND,
            )
            box = label.get_window_extent()
            if inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1) and not box.count_overlaps(occupied):
                occupied.append(box)
                break
            label.remove()
