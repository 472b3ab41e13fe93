"""What all charts share: matplotlib's settings, colours, markers and legends."""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context, rcParamsDefault
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from parbench.report.panels import CellView, fold
from parbench.results.looks import MARKERS, Look

INK, MUTED, FAINT, GRID, GROUND = "#1b1f24", "#5b6470", "#c2c8d0", "#dfe3e8", "#ffffff"


WIDTH = 5.2
"""Inches of a chart of one run. A phone shows it whole, and its letters are still large enough to be read."""


IDEAL_LINE: Any = {"color": MUTED, "linewidth": 1, "linestyle": (0, (6, 3))}
"""The dashed line of what would be ideal, or of one device."""


_STYLE: Any = {
    "svg.hashsalt": "parbench",
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud, and takes the page's font
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "figure.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 6.5,
    "lines.markeredgewidth": 0.9,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 3.2,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.07,
}


MAX_LEGEND = 24


@contextmanager
def report_style() -> Iterator[None]:
    """Applies the report's matplotlib settings, whatever the user's are, until the block ends."""
    with rc_context({**rcParamsDefault, **_STYLE}), warnings.catch_warnings():
        # A PNG shows boxes for letters that the bundled font lacks; an SVG uses the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def make_figure(height: float) -> Figure:
    """Makes a figure of the usual width and this height (inches) without automatic layout, which takes long."""
    layout: Any = "none"
    return Figure(figsize=(WIDTH, height), layout=layout)


def add_axes(figure: Figure, *place: int) -> Axes:
    """Adds axes without a title, for whose place matplotlib would measure all ticks."""
    axes = figure.add_subplot(*place)
    axes.set_title("", y=1.0)
    return axes


def set_margins(figure: Figure, *, left: float, right: float, bottom: float, top: float) -> None:
    """Sets the inches around the plots of a figure without automatic layout."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)


def draw_segments(ax: Axes, lines: Iterable[Iterable[Sequence[float]]], **style: Any) -> Line2D:
    """Draws separate lines of one style as a single path: the page is far smaller than with a path for each."""
    gap = (math.nan, math.nan)
    points = [point for line in lines for point in (*line, gap)] or [gap]
    x, y = zip(*points, strict=True)
    return ax.add_line(Line2D(x, y, **{"solid_capstyle": "butt", **style}))


def add_legend(figure: Figure, cells: Sequence[CellView], extra: Sequence[Artist] = ()) -> None:
    """Adds a legend below the drawing and makes the figure taller by its height.

    Each label of `cells` appears once, with the notes of its cells; after them come the `extra` handles.
    """
    # Of several cells of a label, the one with the most notes is kept.
    cell_of_label = {cell.record.label: cell for cell in sorted(cells, key=lambda cell: len(cell.notes))}
    labels = list(dict.fromkeys(cell.record.label for cell in cells))
    entries = [cell_of_label[label] for label in labels[:MAX_LEGEND]]
    handles: list[Any] = [make_handle(cell.look) for cell in entries]
    names = [fold(cell.name, 48) for cell in entries]
    if len(labels) > MAX_LEGEND:
        handles.append(Line2D([], [], linestyle="none"))
        names.append(f"and {len(labels) - MAX_LEGEND} more: see the table")
    handles += extra
    names += [str(handle.get_label()) for handle in extra]
    columns = _count_columns(figure, names)
    make_room_below(figure, _legend_height(names, columns))
    place_below(figure, handles, names, columns)


def place_below(figure: Figure, handles: Sequence[Any], names: Sequence[str], columns: int) -> None:
    """Writes a legend at the bottom of the figure."""
    place: Any = "lower center" if figure.get_layout_engine() is None else "outside lower center"
    figure.legend(handles, names, loc=place, ncols=columns, borderpad=0.1, columnspacing=1.4)


def make_room_below(figure: Figure, inches: float) -> None:
    """Makes the figure taller at its bottom, and leaves the size of its plots."""
    before = figure.get_figheight()
    after = before + inches
    figure.set_figheight(after)
    if figure.get_layout_engine() is None:
        pars = figure.subplotpars
        figure.subplots_adjust(bottom=(pars.bottom * before + inches) / after, top=(pars.top * before + inches) / after)


def make_handle(look: Look) -> Line2D:
    """Makes a legend's handle: a piece of line with the look's marker."""
    return Line2D([], [], color=look.hex, linestyle=look.linestyle, **marker_style(look))


def marker_style(look: Look) -> dict[str, Any]:
    """A look's marker, as arguments of `Axes.plot`. Its dark edge makes a light colour visible on a light ground."""
    return {"marker": MARKERS[look.marker], "markerfacecolor": look.hex, "markeredgecolor": INK, "markeredgewidth": 0.6}


def format_tick(value: float) -> str:
    """Writes a number as a tick's short label, such as 20k or 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _count_columns(figure: Figure, names: Sequence[str]) -> int:
    """How many columns of the legend fit the figure's width, from 1 to 4."""
    longest = max((len(line) for name in names for line in name.split("\n")), default=1)
    return max(1, min(4, int(figure.get_figwidth() / (0.075 * longest + 0.75))))


def _legend_height(names: Sequence[str], columns: int) -> float:
    """Inches that the legend takes. Names may have several lines, so columns differ in height."""
    rows = math.ceil(len(names) / columns)
    line_counts = [name.count("\n") + 1 for name in names]
    tallest = max(sum(line_counts[start : start + rows]) for start in range(0, len(names), rows))
    return 0.06 * rows + 0.135 * tallest + 0.1
