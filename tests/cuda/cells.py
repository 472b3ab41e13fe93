"""The cells that are tried on fake devices."""

from collections.abc import Hashable
from pathlib import Path

from parbench.plan.cells import Cell
from parbench.plan.reading import read_plan
from parbench.system.devices import Machine
from tests.support.pairwise import pairwise

SCENARIO = Path(__file__).with_name("matrix.yaml")
GPUS = Machine(cores=tuple((core,) for core in range(64)), gpus=8, compute_capability=(9, 0))
PLAN = read_plan(SCENARIO, GPUS)


def values_of(cell: Cell) -> tuple[Hashable, ...]:
    """A cell's value on each axis."""
    record = cell.record
    kind = (record.workload.partition("(")[0], record.family, cell.workload.activation_checkpointing)
    return (*kind, record.precision, record.label, record.devices)


CELLS = {cell.record.id: cell for cell in pairwise(PLAN.runnable, values_of)}
