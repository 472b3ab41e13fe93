"""Parquet."""

from io import BytesIO

from parbench.errors import UsageError
from parbench.export.base import Document, Format


class Parquet(Format):
    """A table that can be read back with its types."""

    name = "parquet"
    needs = "frame"

    def write(self, document: Document) -> bytes:
        """Raises `UsageError` where pyarrow is not installed."""
        assert document.frame is not None  # noqa: S101 - for mypy: the format is offered for documents with a frame
        buffer = BytesIO()
        try:
            document.frame.to_parquet(buffer, index=False)
        except ImportError:
            raise UsageError("parquet needs pyarrow: pip install 'parbench[parquet]'") from None
        return buffer.getvalue()
