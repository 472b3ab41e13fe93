"""Comma-separated values."""

from parbench.export.base import Document, Format
from parbench.text import plain


class Csv(Format):
    """A header and a line a row. A text that a spreadsheet would take for a formula begins with an apostrophe."""

    name = "csv"
    needs = "frame"

    def write(self, document: Document) -> str:
        """Whole figures, unknown ones empty."""
        assert document.frame is not None  # noqa: S101 - for mypy: the format is offered for documents with a frame
        return document.frame.map(_inert).to_csv(index=False, lineterminator="\n")


def _inert(value: object) -> object:
    if not isinstance(value, str):
        return value
    return f"'{plain(value)}" if value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else plain(value)
