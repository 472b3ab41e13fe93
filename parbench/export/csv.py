"""CSV."""

import pandas as pd

from parbench.text import plain


def to_csv(table: pd.DataFrame) -> str:
    """Comma-separated values. A text that a spreadsheet would take for a formula begins with an apostrophe."""

    def harmless(value: object) -> object:
        if not isinstance(value, str):
            return value
        return f"'{plain(value)}" if value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else plain(value)

    return table.map(harmless).to_csv(index=False, lineterminator="\n")
