"""Parquet."""

from io import BytesIO

import pandas as pd

from parbench.errors import UsageError


def to_parquet(table: pd.DataFrame) -> bytes:
    """Parquet, for reading back with its types. Raises `UsageError` where pyarrow is not installed."""
    buffer = BytesIO()
    try:
        table.to_parquet(buffer, index=False)
    except ImportError:
        raise UsageError("parquet needs pyarrow: pip install 'parbench[parquet]'") from None
    return buffer.getvalue()
