"""What every cell loses of its ideal speedup, as a table: a row a cell, a column a loss, which add up."""

from collections.abc import Iterable, Sequence

import pandas as pd

from parbench.figures.statistics import Summary
from parbench.figures.waterfall import LOSS_MEANINGS
from parbench.results.breakdown import CELL_COLUMNS
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run


def _columns(name: str) -> tuple[str, str, str]:
    return name, f"{name}_ci_low", f"{name}_ci_high"


NUMBERS = tuple(column for name in (*LOSS_MEANINGS, "speedup") for column in _columns(name))
COLUMNS = (*CELL_COLUMNS, "emulated_hosts", "ideal", *NUMBERS)


def waterfall_table(run: Run) -> pd.DataFrame:
    """A row for every cell of the run of which anything is known to explain its speedup, with these `COLUMNS`."""
    return waterfall_of_cells(judge_cells(run), emulated_nodes=run.record.emulated_nodes)


def waterfall_of_cells(cells: Sequence[JudgedCell], *, emulated_nodes: bool = False) -> pd.DataFrame:
    """As `waterfall_table`; `emulated_nodes` says that the run's nodes are parts of one machine.

    In every row the losses, as far as they are known, add up to `ideal` - `speedup`.
    """
    rows = [
        {
            **cell.record.model_dump(include=set(CELL_COLUMNS)),
            "emulated_hosts": emulated_nodes and cell.record.nodes > 1,
            "ideal": cell.waterfall.devices,
            **_fields(cell.waterfall.losses.items()),
            **_fields([("speedup", cell.waterfall.measured)]),
        }
        for cell in cells
        if cell.waterfall
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(NUMBERS, "float64"))


def _fields(summaries: Iterable[tuple[str, Summary]]) -> dict[str, float | None]:
    """The columns of several summaries, each with its name."""
    return {column: value for name, summary in summaries for column, value in zip(_columns(name), summary, strict=True)}
