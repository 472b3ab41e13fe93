"""Names beside points, placed so that none covers another name or a point."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.transforms import Bbox
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


_Offset = tuple[float, float, str, str]

_BACKGROUND: Any = {"facecolor": GROUND, "edgecolor": "none", "alpha": 0.8, "pad": 0.8}

_LEADER: Any = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]], size: float = 7.5) -> None:
    """Writes the name of each point (x, y, name) where there is room around it.

    A name without room is left out: the table has it. `size` is the font's, in points.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
    inside = axes.get_window_extent()
    pixel = figure.dpi / 72
    markers = [
        data for line in axes.lines if len(data := np.asarray(line.get_xydata())) == 1 and np.isfinite(data).all()
    ]
    centres = [axes.transData.transform(marker[0]) for marker in markers]
    occupied = [Bbox.from_bounds(x - 5 * pixel, y - 5 * pixel, 10 * pixel, 10 * pixel) for x, y in centres]
    dots = _dots(axes)
    for x, y, name in points:
        label = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=size, bbox=_BACKGROUND)
        bounds = label.get_window_extent()
        places = _places(axes.transData.transform((x, y)), bounds.width, bounds.height, pixel)
        free = [
            (_count_inside(box, dots), number, box, offset)
            for number, (box, offset) in enumerate(places)
            if inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1) and not box.count_overlaps(occupied)
        ]
        label.remove()
        if free:
            _, number, box, (right, up, horizontal, vertical) = min(free, key=lambda place: place[:2])
            occupied.append(box)
            axes.annotate(
                name,
                (x, y),
                (right, up),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=size,
                bbox=_BACKGROUND,
                arrowprops=_LEADER if number >= len(_DIRECTIONS) else None,
            )


def _places(centre: NDArray[np.float64], width: float, height: float, pixel: float) -> Iterator[tuple[Bbox, _Offset]]:
    """Where a name of this size (pixels) may stand around a point, the best place first, each with its offset."""
    for distance, (right, up, horizontal, vertical) in product(_DISTANCES, _DIRECTIONS):
        x, y = centre[0] + right * distance * pixel, centre[1] + up * distance * pixel
        left = x - width * {"left": 0.0, "center": 0.5, "right": 1.0}[horizontal]
        bottom = y - height * {"bottom": 0.0, "center": 0.5, "top": 1.0}[vertical]
        yield Bbox.from_bounds(left, bottom, width, height), (right * distance, up * distance, horizontal, vertical)


def _dots(axes: Axes) -> NDArray[np.float64]:
    """The centres (in pixels) of the dots that a name had better not cover."""
    offsets = [np.asarray(dots.get_offsets()) for dots in axes.collections if isinstance(dots, PathCollection)]
    return np.asarray(axes.transData.transform(np.concatenate(offsets))) if offsets else np.empty((0, 2))


def _count_inside(box: Bbox, points: NDArray[np.float64]) -> int:
    return int(((points > box.min) & (points < box.max)).all(axis=1).sum())
