"""A run's table as people read it, and as a document that every format can write."""

from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from parbench.export.base import Document
from parbench.export.json import as_json
from parbench.figures.base import Figure
from parbench.figures.definitions import FIGURES
from parbench.text import plain

if TYPE_CHECKING:
    import pandas as pd

Column = Callable[[Mapping[Any, Any]], str]
"""What stands in a column, given a row of the table."""


def cells_document(table: "pd.DataFrame") -> Document:
    """The table of a run's cells, as `results.tables` makes it."""
    columns = {**_where(table), **columns_of(table)}
    rows = table.to_dict(orient="records")
    return Document(
        command="table",
        header=list(columns),
        rows=[[column(row) for column in columns.values()] for row in rows],
        data=[as_json(row) for row in rows],
        frame=table,
    )


def columns_of(rows: "pd.DataFrame") -> dict[str, Column]:
    """The columns that people see of these rows: title and what stands there."""
    figures = [figure for figure in FIGURES.values() if _is_shown(figure, rows)]
    return {**_FIRST, **{figure.title: figure.with_interval for figure in figures}, **_LAST}


def _is_shown(figure: Figure, rows: "pd.DataFrame") -> bool:
    if "terminal always" in figure.shown_in:
        return True
    return "terminal" in figure.shown_in and figure.name in rows and bool(rows[figure.name].notna().any())


def name_of(row: Mapping[Any, Any]) -> str:
    """A strategy's label, and what must be said wherever it is shown."""
    notes = [note for note in ("emulated", "oversubscribed", "emulated_hosts") if row[note] is True]
    return plain(row["label"]) + (f" ({', '.join(notes).replace('_', ' ')})" if notes else "")


def fold_name(name: str, width: int) -> str:
    """A long name on lines of `width` characters, broken before its options and between them; `on 2` stays whole."""
    if len(name) <= width:
        return name
    glued = name.replace("(", " (", 1).replace(" on ", " on\N{NO-BREAK SPACE}")
    return "\n".join(wrap(glued, width)).replace("\N{NO-BREAK SPACE}", " ")


def _where(table: "pd.DataFrame") -> dict[str, Column]:
    """What tells the rows of a table without titles apart: the workload and the scaling, where there are several."""
    names = [name for name in ("workload", "scaling") if table[name].nunique() > 1]
    return {name: lambda row, name=name: str(row[name]) for name in names}  # type: ignore[misc]


_FIRST: Mapping[str, Column] = {
    "strategy": name_of,
    "devices": lambda row: str(row["devices"]) + (f" ({row['nodes']} nodes)" if row["nodes"] > 1 else ""),
    "models": lambda row: str(row["models"]),
}
_LAST: Mapping[str, Column] = {
    "parity": lambda row: row["parity"] if isinstance(row["parity"], str) else "–",
    "status": lambda row: str(row["status"]),
}
