"""How a strategy looks: one colour, marker and dash, the same in every chart, page and terminal table.

The colour follows from the strategy's name alone, so it is the same in every report, whatever else was run, and a
plug-in's strategy has one as well. What shares a colour on a page (variants of one strategy, or two names that fall on
the same one) is told apart by marker and dash.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Petroff's ten colours (arXiv:2107.02270), chosen for readers with and without colour-blindness."""

DARK_PALETTE = (
    "#5ba6ea", "#ffb52e", "#ea4a2c", "#a5b3b1", "#b169e0", "#bd8371", "#ff8630", "#c9bd85", "#8f939f", "#a5e6e9",
)  # fmt: skip
"""The same hues on a dark page, lightened until each stands out from it by a contrast of 3 to 1 or more."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h", "*")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "◀", "⬟", "▶", "⬢", "★")
"""matplotlib's markers, and the characters that stand for them in a terminal and on the page."""

DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.6, 1.4), (6, 1.4, 1.4, 1.4), (3, 1.4))

# The names of parbench's own strategies fall on ten different colours with this number, and the reference on grey.
_SALT = 1598574


@dataclass(frozen=True)
class Look:
    """A strategy's colour (its number in the palettes), marker (its number in `MARKERS`) and dash."""

    colour: int
    marker: int
    dash: tuple[float, ...] = ()

    @property
    def hex(self) -> str:
        """The colour on a light ground."""
        return PALETTE[self.colour]

    @property
    def glyph(self) -> str:
        """The marker as a character."""
        return GLYPHS[self.marker]

    @property
    def linestyle(self) -> Any:
        """The dash as matplotlib wants it."""
        return (0, self.dash) if self.dash else "solid"


def colour_of(strategy: str) -> int:
    """The number of a strategy's colour: from its name and nothing else."""
    digest = hashlib.sha256(f"{_SALT}:{strategy}".encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], "big") % len(PALETTE)


def looks(strategies: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """The look of every label, given (strategy, label) in the order in which they are shown."""
    sharing: defaultdict[int, list[str]] = defaultdict(list)
    found: dict[str, Look] = {}
    for strategy, label in dict.fromkeys(strategies):
        colour = colour_of(strategy)
        if label in found:
            continue
        nth = len(sharing[colour])
        sharing[colour].append(label)
        found[label] = Look(colour, (colour + 3 * nth + nth // 4) % len(MARKERS), DASHES[nth % len(DASHES)])
    return found
