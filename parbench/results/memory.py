"""The account of every cell's memory as a table: a row for each rank of each cell."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from parbench.figures.memory import device_memory_bytes, peak_memory_bytes
from parbench.figures.memory_account import PART_TITLES
from parbench.records.memory_account import MemoryAccountRecord, MemoryPart
from parbench.records.trial import RankRecord, Trial
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run

CELL_COLUMNS = ("workload", "scaling", "strategy", "label", "devices", "nodes", "emulated", "oversubscribed")

PARTS = tuple(PART_TITLES)
"""At the moment when the rank's tensors take the most bytes; they add up to `tensor_peak_bytes`."""

KEPT: tuple[MemoryPart, ...] = ("parameters", "optimizer_state", "gradients")
"""What arithmetic tells beforehand. Columns: `held_…` (gradients right before the optimizer's step), `expected_…` by
the strategy's arithmetic, and `whole_…` of a whole model on one device."""

PHASES = ("setup", "warm_up", "window")
"""After which the growth of anonymous resident memory was read: `growth_…`."""

COLUMNS = (
    *CELL_COLUMNS, "emulated_hosts", "rank", "peak_memory_bytes", "reserved_bytes", "device_memory_bytes",
    "tensor_peak_bytes", *PARTS, *(f"{kind}_{part}" for kind in ("held", "expected", "whole") for part in KEPT),
    *(f"growth_{phase}" for phase in PHASES),
)  # fmt: skip


def memory_table(run: Run) -> pd.DataFrame:
    """The ranks of every cell of the run whose memory was accounted for, with the columns of `COLUMNS`.

    They are of the cell's first launch that has an account: launches differ little in what they hold.
    """
    return memory_of(judge_cells(run), emulated_nodes=run.record.emulated_nodes)


def memory_of(cells: Sequence[JudgedCell], *, emulated_nodes: bool = False) -> pd.DataFrame:
    """As `memory_table`; `emulated_nodes` says that the run's nodes are parts of one machine."""
    rows = [
        {
            **cell.record.model_dump(include=set(CELL_COLUMNS)),
            "emulated_hosts": emulated_nodes and cell.record.nodes > 1,
            **_row(trial, rank, account),
        }
        for cell in cells
        for trial in _accounted(cell)
        for rank in trial.ranks
        if (account := rank.memory_account)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _accounted(cell: JudgedCell) -> list[Trial]:
    """The first launch that has an account, if any has one."""
    return [trial for trial in cell.trials if any(rank.memory_account for rank in trial.ranks)][:1]


def _row(trial: Trial, rank: RankRecord, account: MemoryAccountRecord) -> dict[str, Any]:
    alone = trial.model_copy(update={"ranks": (rank,)})
    return {
        "rank": rank.rank,
        "peak_memory_bytes": peak_memory_bytes(alone),
        "reserved_bytes": max((device.reserved_peak for device in rank.memory.devices), default=None),
        "device_memory_bytes": device_memory_bytes(alone),
        "tensor_peak_bytes": account.at_peak.total if account.at_peak else None,
        **(account.at_peak.model_dump() if account.at_peak else {}),
        **{f"held_{part}": getattr(account.largest, part) for part in KEPT},
        **{f"expected_{part}": getattr(account.expected, part, None) for part in KEPT},
        **{f"whole_{part}": getattr(account.whole, part, None) for part in KEPT},
        **{f"growth_{phase}": getattr(account.growth, phase, None) for phase in PHASES},
    }
