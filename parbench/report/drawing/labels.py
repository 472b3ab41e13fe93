"""Names beside points, placed so that none covers another name or a point."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox, BboxBase
from numpy.typing import NDArray

from parbench.report.drawing.canvas import GROUND, MUTED

_DISTANCES = (9, 24, 42)
"""Points between a name and what it names; from the second on, a line joins them."""

_DIRECTIONS = (
    (0, 1, "center", "bottom"), (1, 0, "left", "center"), (-1, 0, "right", "center"), (0, -1, "center", "top"),
    (0.9, 0.9, "left", "bottom"), (-0.9, 0.9, "right", "bottom"), (0.9, -0.9, "left", "top"),
    (-0.9, -0.9, "right", "top"),
)  # fmt: skip
"""Right and up, with the name's horizontal and vertical alignment; the best first."""


_BACKGROUND: Any = {"facecolor": GROUND, "edgecolor": "none", "alpha": 0.8, "pad": 0.8}

_LEADER: Any = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}


def place_labels(figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]], size: float = 7.5) -> None:
    """Writes the name of each point (x, y, name) where there is room around it.

    A name without room is left out: the table has it. `size` is the font's, in points.
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
    inside = axes.get_window_extent()
    pixel = figure.dpi / 72
    markers = [data for line in axes.lines if len(data := np.asarray(line.get_xydata())) == 1]
    centres = [axes.transData.transform(marker[0]) for marker in markers]
    occupied = [Bbox.from_bounds(x - 5 * pixel, y - 5 * pixel, 10 * pixel, 10 * pixel) for x, y in centres]
    others = _dots(axes)
    for x, y, name in points:
        best: tuple[int, Annotation, BboxBase] | None = None
        for distance, (right, up, horizontal, vertical) in product(_DISTANCES, _DIRECTIONS):
            label = axes.annotate(
                name,
                (x, y),
                (right * distance, up * distance),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=size,
                bbox=_BACKGROUND,
                arrowprops=_LEADER if distance > _DISTANCES[0] else None,
            )
            label.get_window_extent()  # only this moves it to its place
            box = Text.get_window_extent(label)
            fits = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
            covered = _count_inside(box, others) if fits and not box.count_overlaps(occupied) else None
            if covered is None or (best and covered >= best[0]):
                label.remove()
                continue
            if best:
                best[1].remove()
            best = covered, label, box
            if not covered:
                break
        if best:
            occupied.append(Bbox(best[2].get_points()))


def _dots(axes: Axes) -> NDArray[np.float64]:
    """The centres (in pixels) of the dots that a name had better not cover."""
    offsets = [np.asarray(dots.get_offsets()) for dots in axes.collections if isinstance(dots, PathCollection)]
    return np.asarray(axes.transData.transform(np.concatenate(offsets))) if offsets else np.empty((0, 2))


def _count_inside(box: BboxBase, points: NDArray[np.float64]) -> int:
    return int(((points > box.min) & (points < box.max)).all(axis=1).sum())
