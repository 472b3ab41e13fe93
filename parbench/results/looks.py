"""How a strategy looks: one colour, marker and dash, the same in every chart, page and terminal table.

The colour follows from the strategy's name, marker and dash from the label, and from nothing else: they are the same in
every report, whatever else was run, and a plug-in's strategy has them as well. A strategy without options is drawn
solid, its variants dashed.

One exception: what shares a colour in one report (variants of one strategy, or two names that fall on the same one) has
markers of its own there. Where two labels fall on the same marker, the later one in the alphabet takes the next free
one; where there are more labels than markers, marker and dash together tell them apart. The variants in parbench's own
scenarios fall on different markers, up to as many as there are.
"""

import hashlib
from collections.abc import Collection, Iterable
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


# With these numbers the names of parbench's own strategies fall on ten different colours, the reference on grey, and
# the variants in parbench's own scenarios on different markers.
_COLOUR_SALT = 1598574


_VARIANT_SALT = 13


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
    return _hash(f"{_COLOUR_SALT}:{strategy}") % len(PALETTE)


def look_of(strategy: str, label: str) -> Look:
    """The look that a label wants: from its text and nothing else."""
    colour = colour_of(strategy)
    if label == strategy:
        return Look(colour, colour)
    shift, dash = divmod(_hash(f"{_VARIANT_SALT}:{label}"), len(DASHES) - 1)
    # Neither the marker nor the line of the strategy without options.
    return Look(colour, (colour + 1 + shift % (len(MARKERS) - 1)) % len(MARKERS), DASHES[1 + dash])


def looks(strategies: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """The look of every label of one report, given (strategy, label); strategies without options choose first."""
    found: dict[str, Look] = {}
    for strategy, label in sorted(set(strategies), key=lambda pair: (pair[0] != pair[1], pair[1])):
        wanted = look_of(strategy, label)
        found.setdefault(label, _free(wanted, {look for look in found.values() if look.colour == wanted.colour}))
    return found


def _free(wanted: Look, taken: Collection[Look]) -> Look:
    """The look wanted, or else the next one whose marker is free, or whose marker and dash together are."""
    first = DASHES.index(wanted.dash)
    choices = [
        Look(wanted.colour, (wanted.marker + shift) % len(MARKERS), DASHES[(first + turn) % len(DASHES)])
        for turn in range(len(DASHES))
        for shift in range(len(MARKERS))
    ]
    markers = {look.marker for look in taken}
    free = [look for look in choices if look not in taken]
    return next((look for look in free if look.marker not in markers), (free or choices)[0])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8], "big")
