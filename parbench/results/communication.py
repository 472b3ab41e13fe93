"""What every cell exchanges and how fast, as a table: a row for each kind of exchange and axis of a mesh."""

from collections.abc import Sequence

import pandas as pd

from parbench.figures.communication import CellExchange, exchanges_of
from parbench.records.machine import MachineRecord
from parbench.results.breakdown import CELL_COLUMNS
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run

NUMBERS = (
    "ranks",
    "calls",
    "given_bytes",
    "seconds",
    "algorithm_bandwidth",
    "bus_bandwidth",
    "machine_bus_bandwidth",
    "share_of_machine",
)
COLUMNS = (*CELL_COLUMNS, "emulated_hosts", "exchange", "axis", *NUMBERS)


def communication_table(run: Run, machine: MachineRecord | None = None) -> pd.DataFrame:
    """The rows of all cells of the run whose steps were accounted for and that exchange anything, with `COLUMNS`.

    Calls, bytes and seconds are those of a step, bandwidths bytes per second. What the `machine` reached with calls of
    the same size, and which share of it a cell reaches, is known where its curves are given.
    """
    return communication_of(judge_cells(run), machine, emulated_nodes=run.record.emulated_nodes)


def communication_of(
    cells: Sequence[JudgedCell], machine: MachineRecord | None, *, emulated_nodes: bool = False
) -> pd.DataFrame:
    """As `communication_table`; `emulated_nodes` says that the run's nodes are parts of one machine."""
    rows = [
        {
            **cell.record.model_dump(include=set(CELL_COLUMNS)),
            "emulated_hosts": emulated_nodes and cell.record.nodes > 1,
            "exchange": each.kind,
            "axis": each.axis,
            **_numbers(each, machine),
        }
        for cell in cells
        for each in exchanges_of(cell.trials)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(NUMBERS, "float64"))


def _numbers(each: CellExchange, machine: MachineRecord | None) -> dict[str, float | None]:
    reachable = each.reachable(machine) if machine else None
    achieved = each.bus_bandwidth
    return {
        "ranks": each.ranks,
        "calls": each.calls,
        "given_bytes": each.given_bytes,
        "seconds": each.seconds,
        "algorithm_bandwidth": each.algorithm_bandwidth,
        "bus_bandwidth": achieved,
        "machine_bus_bandwidth": reachable,
        "share_of_machine": achieved / reachable if achieved and reachable else None,
    }
