"""The account of every cell's step as people read it, and as a document that every format can write."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from parbench.export.base import Document
from parbench.export.cells import Column, name_of
from parbench.export.grouped import print_grouped
from parbench.export.json import as_json
from parbench.figures.account import PART_MEANINGS, CellPart
from parbench.figures.definitions import FIGURES
from parbench.text import with_unit

if TYPE_CHECKING:
    import pandas as pd

TITLES: dict[CellPart, str] = {
    "forward": "fwd",
    "backward": "bwd",
    "optimizer": "optim.",
    "communication": "exposed",
    "pipeline": "bubble",
    "unexplained": "unexpl.",
}
"""What stands above the columns of parts whose names are long, or say too little."""

NOTHING = 0.005
"""A part that takes less of every step has no column."""


def breakdown_document(table: "pd.DataFrame") -> Document:
    """The table of a run's breakdowns, as `results.breakdown` makes it."""
    columns = _columns(table)
    rows = table.to_dict(orient="records")
    return Document(
        command="breakdown",
        header=list(columns),
        rows=[[column(row) for column in columns.values()] for row in rows],
        data=[as_json(row) for row in rows],
        frame=table,
    )


def print_breakdown(table: "pd.DataFrame", console: Console) -> None:
    """The shares of each cell's step, a table a workload, and below it what the columns mean."""
    if table.empty:
        note = "No cell has an account of its steps: it was turned off (measure.account), or an older version measured."
        console.print(Text(note), soft_wrap=True)
        return
    print_grouped(table, console, title="% of a step", columns_of=_columns, explain=_explain)


def _columns(table: "pd.DataFrame") -> dict[str, Column]:
    columns: dict[str, Column] = {
        "strategy": lambda row: f"{name_of(row)} on {row['devices']}",
        "step": lambda row: with_unit(row["mean_step_s"], "s"),
    }
    for part in _parts(table):
        columns[TITLES.get(part, part)] = lambda row, part=part: f"{100 * row[part]:.0f}"  # type: ignore[misc]
    for name, title in (("overlapped_comm", "overlap"), ("profiled_step", "prof.")):
        if table[name].notna().any():
            columns[title] = lambda row, name=name: FIGURES[name].text(row[name])  # type: ignore[misc]
    return columns


def _parts(table: "pd.DataFrame") -> Iterator[CellPart]:
    """The parts that some cell spends time on; what is unexplained is always shown."""
    return (part for part in PART_MEANINGS if part == "unexplained" or table[part].max() >= NOTHING)


def _explain(table: "pd.DataFrame") -> Iterator[str]:
    """What the columns mean that do not speak for themselves."""
    for part in _parts(table):
        if part not in ("forward", "loss", "backward", "optimizer"):
            yield f"{TITLES.get(part, part)}: {PART_MEANINGS[part]}"
    yield "overlap: communication while something is computed, in none of the other columns"
    yield "prof.: a step under the profiler, by which this was made, over one without it"
