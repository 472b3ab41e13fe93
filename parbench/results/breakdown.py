"""The account of every cell's step as a table: a row a cell, a column a part, in shares that add up to one."""

from collections.abc import Sequence

import pandas as pd

from parbench.figures.account import PART_MEANINGS, disturbance, mean_shares
from parbench.figures.definitions import FIGURES
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run

CELL_COLUMNS = ("workload", "scaling", "strategy", "label", "devices", "nodes", "emulated", "oversubscribed")
PARTS = tuple(PART_MEANINGS)
COLUMNS = (*CELL_COLUMNS, "emulated_hosts", "mean_step_s", *PARTS, "overlapped_comm", "profiled_step")


def breakdown_table(run: Run) -> pd.DataFrame:
    """A row for every cell of the run whose steps were accounted for, with the columns of `COLUMNS`."""
    return breakdown_of(judge_cells(run), emulated_nodes=run.record.emulated_nodes)


def breakdown_of(cells: Sequence[JudgedCell], *, emulated_nodes: bool = False) -> pd.DataFrame:
    """As `breakdown_table`; `emulated_nodes` says that the run's nodes are parts of one machine."""
    rows = [
        {
            **cell.record.model_dump(include=set(CELL_COLUMNS)),
            "emulated_hosts": emulated_nodes and cell.record.nodes > 1,
            "mean_step_s": FIGURES["mean_step_s"].summarise(cell.launches).mean,
            **shares,
            "overlapped_comm": FIGURES["overlapped_comm"].summarise(cell.launches).mean,
            "profiled_step": disturbance(cell.trials),
        }
        for cell in cells
        if (shares := mean_shares(cell.trials))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
