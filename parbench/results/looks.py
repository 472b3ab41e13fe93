"""How a strategy looks: one colour, marker and dash, the same in every chart, page and terminal table.

parbench's own strategies have fixed colours. Any other strategy's colour follows from its name, marker and dash from
the label, and from nothing else: so they are the same in every report, whatever else was run. A strategy without
options is drawn solid, its variants dashed.

One exception: labels that share a colour in one report (variants of one strategy, or two strategies of one colour) have
markers of their own there. Where two labels have the same marker, the later one in the alphabet takes the next free
one; where there are more labels than markers, marker and dash together tell them apart.
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

COLOURS = {
    "ddp": 0, "model_parallel": 1, "task_pool": 2, "fsdp": 3, "hybrid": 4, "ensemble": 5, "data_parallel": 6,
    "local_sgd": 7, "single": 8, "tensor_parallel": 9,
}  # fmt: skip
"""The colours of parbench's own strategies by number in the palettes: ten for ten, and grey for the reference."""

VARIANTS_FROM = 13
"""Where markers and dashes of variants begin: with this number those of parbench's own scenarios differ."""


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
    """The number of a strategy's colour in the palettes: a fixed one, or else one that follows from its name."""
    return COLOURS.get(strategy, _hash(strategy) % len(PALETTE))


def look_of(strategy: str, label: str) -> Look:
    """The look of a label where no other label of the report has it: that follows from the two names alone."""
    colour = colour_of(strategy)
    if label == strategy:
        return Look(colour, colour)
    shift, dash = divmod(_hash(f"{VARIANTS_FROM}:{label}"), len(DASHES) - 1)
    # Neither the marker nor the line of the strategy without options.
    return Look(colour, (colour + 1 + shift % (len(MARKERS) - 1)) % len(MARKERS), DASHES[1 + dash])


def looks(strategies: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """The look of every label of one report, given (strategy, label); strategies without options choose first."""
    by_label: dict[str, Look] = {}
    for strategy, label in sorted(set(strategies), key=lambda pair: (pair[0] != pair[1], pair[1])):
        look = look_of(strategy, label)
        by_label.setdefault(label, _free(look, {other for other in by_label.values() if other.colour == look.colour}))
    return by_label


def _free(look: Look, taken: Collection[Look]) -> Look:
    """This look, or else the next one whose marker is free, or whose marker and dash together are."""
    first = DASHES.index(look.dash)
    choices = [
        Look(look.colour, (look.marker + shift) % len(MARKERS), DASHES[(first + turn) % len(DASHES)])
        for turn in range(len(DASHES))
        for shift in range(len(MARKERS))
    ]
    markers = {other.marker for other in taken}
    free = [choice for choice in choices if choice not in taken]
    return next((choice for choice in free if choice.marker not in markers), (free or choices)[0])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8], "big")
