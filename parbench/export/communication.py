"""What every cell exchanges as people read it, and as a document that every format can write."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from parbench.export.base import Document
from parbench.export.cells import Column, name_of
from parbench.export.grouped import print_grouped
from parbench.export.json import as_json
from parbench.text import with_unit

if TYPE_CHECKING:
    import pandas as pd

UNITS = {
    "given_bytes": ("bytes", "bytes"),
    "seconds": ("time", "s"),
    "algorithm_bandwidth": ("algorithm", "B/s"),
    "bus_bandwidth": ("bus", "B/s"),
    "machine_bus_bandwidth": ("machine", "B/s"),
}
"""The titles of columns and the units of what stands there."""


def communication_document(table: "pd.DataFrame") -> Document:
    """The table of a run's exchanges, as `results.communication` makes it."""
    columns = _columns(table)
    rows = table.to_dict(orient="records")
    return Document(
        command="communication",
        header=list(columns),
        rows=[[column(row) for column in columns.values()] for row in rows],
        data=[as_json(row) for row in rows],
        frame=table,
    )


def print_communication(table: "pd.DataFrame", console: Console) -> None:
    """The exchanges of each cell, a table a workload, and below it what the columns mean."""
    if table.empty:
        note = (
            "No cell exchanges anything, or none has an account of its steps: it was turned off (measure.account), or "
            "an older version measured."
        )
        console.print(Text(note), soft_wrap=True)
        return
    print_grouped(table, console, title="what a rank exchanges in a step", columns_of=_columns, explain=_explain)


def _columns(table: "pd.DataFrame") -> dict[str, Column]:
    columns: dict[str, Column] = {
        "strategy": lambda row: f"{name_of(row)} on {row['devices']}",
        "exchange": lambda row: row["exchange"].replace("_", "-"),
    }
    if table["axis"].notna().any():
        columns["axis"] = lambda row: row["axis"] or "–"
    columns["calls"] = lambda row: with_unit(row["calls"], "calls")
    for name in _shown(table):
        title, unit = UNITS[name]
        columns[title] = lambda row, name=name, unit=unit: with_unit(row[name], unit)  # type: ignore[misc]
    if table["share_of_machine"].notna().any():
        columns["share"] = lambda row: with_unit(row["share_of_machine"], "%")
    return columns


def _shown(table: "pd.DataFrame") -> list[str]:
    return [name for name in UNITS if table[name].notna().any()]


def _explain(table: "pd.DataFrame") -> Iterator[str]:
    if table["axis"].notna().any():
        yield "axis: of the mesh of devices; none where all ranks of a model exchange with each other"
    yield "time: of a step, in which such an exchange runs on the rank for which that takes shortest, overlapped or not"
    if "algorithm_bandwidth" in _shown(table):
        yield "algorithm, bus: bandwidths as nccl-tests defines them; meanwhile the rank may compute as well"
    if "machine_bus_bandwidth" in _shown(table):
        yield "machine: the bus bandwidth that it reached with calls of this size when it did nothing else"
        yield "share: of the machine's. Near 100 % the wire is the limit; far below, computing ranks or waiting are"
