"""A finished chart, and its bytes: PNG, SVG, or SVG inside the page. The same chart always gives the same bytes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from parbench.report.drawing.canvas import FAINT, GRID, GROUND, INK, MUTED, report_style
from parbench.report.drawing.marks import PREFIX, QUIET_PREFIX
from parbench.results.looks import PALETTE

_CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    FAINT: "--faint",
    GRID: "--grid",
    GROUND: "--surface",
    **{colour: f"--s{number}" for number, colour in enumerate(PALETTE)},
}
"""The page's name for each colour: there it is light or dark."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing, with what a reader who cannot see it needs: a description, and the numbers as a table.

    `subject` is what is drawn, such as the workload; `alt` describes the drawing in words; `header` and `rows` are the
    table of its numbers. A `wide` chart takes the page's whole width.
    """

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
        """Name and subject, which are understood without the page around them."""
        return f"{self.name}: {self.subject}"


def to_png(chart: Chart) -> bytes:
    """Renders the chart as a PNG for slides."""
    buffer = BytesIO()
    with report_style():
        chart.figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(chart: Chart) -> str:
    """Renders the chart as an SVG file with title and description."""
    buffer = BytesIO()
    with report_style():
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # `savefig` would draw it twice, the first time only to measure it.
        canvas: Any = FigureCanvasSVG(chart.figure)
        canvas.print_svg(buffer, metadata=no_metadata)
    text = buffer.getvalue().decode()
    opening, _, content = text[text.index("<svg") :].partition(">")
    title, alt = escape(chart.title, quote=False), escape(chart.alt, quote=False)
    labels = f'<title id="{chart.id}-title">{title}</title><desc id="{chart.id}-desc">{alt}</desc>'
    opening += f' role="img" aria-labelledby="{chart.id}-title {chart.id}-desc">'
    content = _prefix_ids(_join_styles(_shorten_numbers(content)), chart.id)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{opening}{labels}{content}'


def to_inline(svg: str) -> str:
    """Turns an SVG file into an element of the page, which gives it colours, font and size."""
    opening, _, content = svg[svg.index("<svg") :].partition(">")
    opening = re.sub(r' (?:width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", opening)
    return f"{opening}>{re.sub(r'<[^>]+>', _apply_theme, content)}"


def _shorten_numbers(svg: str) -> str:
    """Rounds coordinates to a tenth of a point, and leaves out rotations by nothing and the breaks within paths."""
    tidied = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    return re.sub(r"<(?:path|use|g|text)[^>]+>", _shorten_tag, tidied)


def _join_styles(svg: str) -> str:
    """Writes the style that all markers of a group have once, at the group."""
    return re.sub(r'<g((?: [^>]*)?)>(\s*)((?:<use [^>]*style="[^"]*"/>\s*)+)</g>', _join_style, svg)


def _join_style(group: re.Match[str]) -> str:
    styles = set(re.findall(r' style="[^"]*"', group[3]))
    if len(styles) > 1 or "style=" in group[1]:
        return group[0]
    (style,) = styles
    return f"<g{group[1]}{style}>{group[3].replace(style, '')}</g>"


def _shorten_tag(tag: re.Match[str]) -> str:
    text = re.sub(r"(-?\d+\.\d)\d+", r"\1", tag[0]) if "." in tag[0] else tag[0]
    return text.replace(" \n", " ").replace("\n", " ")


def _prefix_ids(svg: str, prefix: str) -> str:
    """Prefixes the ids that are referred to, turns those of marks into attributes, and removes the others."""
    tags = "".join(re.findall(r"<[^>]+>", svg))
    # matplotlib's own names are long hashes, which would be a large part of the page.
    names = dict.fromkeys(re.findall(r'(?:href="|url\()#([\w-]+)', tags))
    targets = {name: f"{prefix}-part{number}" for number, name in enumerate(names, start=1)}

    def prefix_id(id_: re.Match[str]) -> str:
        if id_[1] in targets:
            return f' id="{targets[id_[1]]}"'
        if id_[1].startswith(QUIET_PREFIX):
            return f' data-mark="{id_[1].removeprefix(QUIET_PREFIX)}" class="quiet"'
        return f' data-mark="{id_[1].removeprefix(PREFIX)}"' if id_[1].startswith(PREFIX) else ""

    def prefix_tag(tag: re.Match[str]) -> str:
        if " id=" not in tag[0] and "#" not in tag[0]:
            return tag[0]
        text = re.sub(r' id="([^"]*)"', prefix_id, tag[0])
        return re.sub(r'((?:href="|url\()#)([\w-]+)', lambda used: used[1] + targets[used[2]], text)

    return re.sub(r"\s*\n\s*", "\n", re.sub(r"<[^>]+>", prefix_tag, svg))


def _apply_theme(tag: re.Match[str]) -> str:
    """Replaces matplotlib's colours and font in a tag by the page's."""
    text = re.sub(
        r"#[0-9a-f]{6}\b",
        lambda colour: f"var({_CSS_VARIABLES[colour[0]]})" if colour[0] in _CSS_VARIABLES else colour[0],
        tag[0],
    )
    return re.sub(r"font: (?:(\w+) )?([\d.]+px) [^;\"]*", _inherit_font, text)


def _inherit_font(font: re.Match[str]) -> str:
    """Keeps size and weight of a font, and leaves its family to the page."""
    weight = f"; font-weight: {font[1]}" if font[1] else ""
    return f"font-size: {font[2]}{weight}"
