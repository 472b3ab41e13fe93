"""What cells lose of their ideal speedup as people read it, and as a document that every format can write."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from parbench.export.base import Document
from parbench.export.cells import Column, name_of
from parbench.export.grouped import print_grouped
from parbench.export.json import as_json
from parbench.figures.speed import SPEEDUP
from parbench.figures.waterfall import LOSS_MEANINGS, Loss
from parbench.text import with_reach

if TYPE_CHECKING:
    import pandas as pd

TITLES: dict[Loss, str] = {
    "unsplit": "batch, contention, rest",
    "batch": "smaller batch",
    "communication": "exposed",
    "pipeline": "bubble",
    "remainder": "rest",
}
"""What stands above the columns of losses whose names are long, or say too little."""

NOTHING = 0.005
"""A loss that is smaller in every row has no column."""

ENDS = ("", "_ci_low", "_ci_high")
"""How the columns of a value and of the ends of its interval end."""


def waterfall_document(table: "pd.DataFrame") -> Document:
    """The table of a run's losses, as `results.waterfall` makes it."""
    columns = _columns(table)
    rows = table.to_dict(orient="records")
    return Document(
        command="waterfall",
        header=list(columns),
        rows=[[column(row) for column in columns.values()] for row in rows],
        data=[as_json(row) for row in rows],
        frame=table,
    )


def print_waterfall(table: "pd.DataFrame", console: Console) -> None:
    """The losses of each cell, a table a workload, and below it what the columns mean."""
    if table.empty:
        note = (
            "Nothing explains a cell's speedup: no cell on several devices is compared with one device, or neither its "
            "steps were accounted for (measure.account) nor companions launched (measure.explain)."
        )
        console.print(Text(note), soft_wrap=True)
        return
    title = "what is lost on the way from ideal to measured speedup"
    print_grouped(table, console, title=title, columns_of=_columns, explain=_explain)


def _explain(table: "pd.DataFrame") -> Iterator[str]:
    yield from (f"{TITLES.get(loss, loss)}: {LOSS_MEANINGS[loss]}" for loss in _losses(table))
    yield "± is half of the 95 % interval over rounds"


def _columns(table: "pd.DataFrame") -> dict[str, Column]:
    columns: dict[str, Column] = {
        "strategy": lambda row: f"{name_of(row)} on {row['devices']}",
        "ideal": lambda row: f"{row['ideal']}×",
    }
    for loss in _losses(table):
        columns[TITLES.get(loss, loss)] = lambda row, loss=loss: with_reach(*(row[f"{loss}{end}"] for end in ENDS))  # type: ignore[misc]
    return {**columns, SPEEDUP.title: lambda row: SPEEDUP.text(row[SPEEDUP.name])}


def _losses(table: "pd.DataFrame") -> Iterator[Loss]:
    """Those that some cell has."""
    return (loss for loss in LOSS_MEANINGS if table[loss].abs().max() >= NOTHING)
