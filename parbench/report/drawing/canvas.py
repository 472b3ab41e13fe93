"""What all charts share: matplotlib's settings, colours, markers and legends."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context, rcParamsDefault
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from parbench.report.panels import CellView, fold
from parbench.results.looks import MARKERS, Look

INK, MUTED, GRID, GROUND = "#1b1f24", "#5b6470", "#dfe3e8", "#ffffff"


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
    figure.set_figheight(figure.get_figheight() + _legend_height(names, columns))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


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
