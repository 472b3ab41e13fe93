"""Whose a mark is: the drawings on the page say so, and its script can then bring out one strategy in all charts."""

from typing import TypeVar

from matplotlib.artist import Artist

from parbench.report.panels import CellView, slugify

PREFIX = "mark-"
"""matplotlib writes an artist's id into the SVG; one that begins so becomes the attribute `data-mark`."""

QUIET_PREFIX = "quiet-"
"""The same for marks that are grey until their strategy is brought out."""

AnyArtist = TypeVar("AnyArtist", bound=Artist)


def mark(artist: AnyArtist, cell: CellView, *, quiet: bool = False) -> AnyArtist:
    """Notes that the artist draws cells of this cell's strategy; a `quiet` one is grey until that is brought out."""
    artist.set_gid(f"{QUIET_PREFIX if quiet else PREFIX}{mark_name(cell)}")
    return artist


def mark_name(cell: CellView) -> str:
    """The strategy's name as the page's attributes have it."""
    return slugify(cell.record.strategy)
