"""Names of lines beside their ends, in place of a legend."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from parbench.report.drawing.canvas import draw_segments
from parbench.report.drawing.labels import place_labels
from parbench.report.drawing.marks import mark
from parbench.report.drawing.series import Series
from parbench.report.panels import fold, spaced

NAME_WIDTH = 24
"""Letters in a line of a name; longer names take several lines."""

_SIZE = 8.0


def name_width(series: Sequence[Series]) -> float:
    """Inches that the names beside the lines take."""
    return 0.3 + 0.56 * _SIZE / 72 * max(len(line) for each in series for line in _fold(each).split("\n"))


def label_ends(axes: Axes, series: Sequence[Series]) -> None:
    """Writes each line's name to the right of the plot, moved apart where ends are close.

    The name of a line that ends before the others stands beside its last point, where there is room.
    """
    last = max(each.end[0] for each in series)
    ending = sorted((each for each in series if each.end[0] == last), key=lambda each: -each.end[1])
    ends = axes.transAxes.inverted().transform(axes.transData.transform([each.end for each in ending]))
    names = [_fold(each) for each in ending]
    line_height = 1.3 * _SIZE / 72 * axes.figure.dpi / axes.get_window_extent().height
    heights = [line_height * (name.count("\n") + 1) for name in names]
    places = _move_apart([float(y) for y in ends[:, 1]], heights)
    for each, name, (x, y), place in zip(ending, names, ends, places, strict=True):
        style = {"color": each.cell.look.hex, "linewidth": 0.8, "transform": axes.transAxes, "clip_on": False}
        mark(draw_segments(axes, [[(x, y), (1.0, y), (1.035, place)]], **style), each.cell)
        text = axes.text(1.05, place, name, transform=axes.transAxes, va="center", fontsize=_SIZE, linespacing=1.1)
        mark(text, each.cell)
    place_labels(axes, [(*each.end, _fold(each)) for each in series if each.end[0] != last], size=_SIZE)


def _fold(series: Series) -> str:
    """The name on up to three lines, broken before the options."""
    return fold(spaced(series.cell.name), NAME_WIDTH, lines=3)


def _move_apart(wished: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Middles close to the wished ones (falling), of boxes of these heights that do not overlap, from 1 down to 0."""
    tops = 1 + heights[0] / 2
    places: list[float] = []
    for middle, height in zip(wished, heights, strict=True):
        place = min(middle, tops - height / 2)
        places.append(place)
        tops = place - height / 2
    bottom = -0.05
    for index in reversed(range(len(places))):
        places[index] = max(places[index], bottom + heights[index] / 2)
        bottom = places[index] + heights[index] / 2
    return places
