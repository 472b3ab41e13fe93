"""What all charts share: matplotlib's settings, and the way from a drawing to deterministic, accessible bytes."""

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

from matplotlib import rc_context, rcParamsDefault
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from parbench.report.panels import CellView, folded
from parbench.results.looks import MARKERS, PALETTE, Look

INK, MUTED, GRID, GROUND = "#1b1f24", "#5b6470", "#dfe3e8", "#ffffff"


_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    GROUND: "--surface",
    **{colour: f"--s{number}" for number, colour in enumerate(PALETTE)},
}


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


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with all that a reader needs who cannot see it: what it shows, and its numbers as a table."""

    id: str
    name: str
    subject: str
    caption: str
    alt: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figure: Figure
    wide: bool = False

    @property
    def title(self) -> str:
        """What it shows, and of what: it also stands alone."""
        return f"{self.name}: {self.subject}"


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib with this report's settings and nobody else's."""
    with rc_context({**rcParamsDefault, **_STYLE}), warnings.catch_warnings():
        # A name in a script that the bundled font lacks is boxes in a PNG; SVG takes the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def png(chart: Chart) -> bytes:
    """The chart as a PNG for slides."""
    buffer = BytesIO()
    with drawing():
        chart.figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def svg(chart: Chart) -> str:
    """The chart as an SVG of its own, with title and description."""
    buffer = BytesIO()
    with drawing():
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        chart.figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue().decode()
    drawn = text[text.index("<svg") :]
    title, alt = escape(chart.title, quote=False), escape(chart.alt, quote=False)
    named = f'<title id="{chart.id}-title">{title}</title><desc id="{chart.id}-desc">{alt}</desc>'
    opening, _, rest = drawn.partition(">")
    labelled = f'{opening} role="img" aria-labelledby="{chart.id}-title {chart.id}-desc">'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{labelled}{named}{_own_ids(rest, chart.id)}'


def inline(drawn: str) -> str:
    """An SVG for the page: its colours are the page's, light or dark, and its size is what there is room for."""
    body = drawn[drawn.index("<svg") :]
    opening, _, rest = body.partition(">")
    opening = re.sub(r' (?:width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", opening)
    return f"{opening}>{re.sub(r'<[^>]+>', _themed, rest)}"


def legend(figure: Figure, cells: Sequence[CellView], extra: Sequence[Artist] = ()) -> None:
    """A legend below the drawing, which it makes taller: every label once, with what must be said of its cells."""
    entries = {cell.record.label: cell for cell in sorted(cells, key=lambda cell: len(cell.notes))}
    order = dict.fromkeys(cell.record.label for cell in cells)
    shown = [entries[label] for label in order][:MAX_LEGEND]
    handles: list[Any] = [line(cell.look) for cell in shown]
    names = [folded(cell.name, 48) for cell in shown]
    if len(order) > MAX_LEGEND:
        handles.append(Line2D([], [], linestyle="none"))
        names.append(f"and {len(order) - MAX_LEGEND} more: see the table")
    handles += extra
    names += [str(each.get_label()) for each in extra]
    lines = [name.split("\n") for name in names]
    room = figure.get_figwidth() / (0.075 * max((len(part) for each in lines for part in each), default=1) + 0.75)
    columns = max(1, min(4, int(room)))
    rows = math.ceil(len(names) / columns)
    # A column takes as many lines as its names have.
    tallest = max(sum(map(len, lines[start : start + rows])) for start in range(0, len(lines), rows))
    figure.set_figheight(figure.get_figheight() + 0.06 * rows + 0.135 * tallest + 0.1)
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def line(look: Look) -> Line2D:
    """A look as a legend's handle."""
    return Line2D([], [], color=look.hex, linestyle=look.linestyle, **marker(look))


def marker(look: Look) -> dict[str, Any]:
    """A look's marker; its edge keeps a light colour visible on a light ground."""
    return {"marker": MARKERS[look.marker], "markerfacecolor": look.hex, "markeredgecolor": INK, "markeredgewidth": 0.6}


def device_axis(axes: Axes, counts: Sequence[int]) -> None:
    """Devices on a log2 axis, a tick for each count that was measured."""
    counts = sorted(set(counts))
    axes.set_xscale("log", base=2)
    # Where there are many counts, the powers of two are enough.
    shown = counts if len(counts) <= 8 else [count for count in counts if count & (count - 1) == 0]
    axes.set_xticks(shown, [str(count) for count in shown])
    axes.set_xlim(min(counts) / 2**0.35, max(counts) * 2**0.35)
    axes.set_xlabel("devices")


def _own_ids(drawn: str, prefix: str) -> str:
    """Ids that are referred to, with a prefix of their own so that charts share a page; the others are left out."""
    used = set(re.findall(r"#([\w-]+)", "".join(re.findall(r"<[^>]+>", drawn))))

    def tag(found: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]*)"', lambda it: f' id="{prefix}-{it[1]}"' if it[1] in used else "", found[0])
        return re.sub(r'((?:href="|url\()#)([\w-]+)', rf"\g<1>{prefix}-\g<2>", text)

    return re.sub(r"<[^>]+>", tag, drawn)


def _themed(found: re.Match[str]) -> str:
    """A tag with the page's colours and font in place of matplotlib's."""
    tag = re.sub(r"#[0-9a-f]{6}\b", lambda it: f"var({_VARIABLES[it[0]]})" if it[0] in _VARIABLES else it[0], found[0])
    return re.sub(r"font: (?:(\w+) )?([\d.]+px) [^;\"]*", _font, tag)


def _font(found: re.Match[str]) -> str:
    weight = f"; font-weight: {found[1]}" if found[1] else ""
    return f"font-size: {found[2]}{weight}"
