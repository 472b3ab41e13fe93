"""Markdown."""

import re

import pandas as pd

from parbench.export.terminal import _where, columns_of
from parbench.text import plain


def to_markdown(table: pd.DataFrame) -> str:
    """The columns of the terminal's table as a GitHub table."""
    columns = {**_where(table), **columns_of(table)}
    rows = [[markdown_cell(column(row)) for column in columns.values()] for row in table.to_dict(orient="records")]
    header = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"
    return header + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def markdown_cell(text: str) -> str:
    """Text that is only text in a GitHub table."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", plain(text))
