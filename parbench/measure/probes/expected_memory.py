"""What a rank has to hold by the arithmetic of its strategy, beside what it was seen to hold."""

from typing import Any

from parbench.records.memory_account import HeldRecord
from parbench.strategies.base import Layout, Strategy
from parbench.training.holdings import Piece, count_held
from parbench.training.workload import Workload


def expect_memory(
    strategy: Strategy[Any], workload: Workload, layout: Layout, rank: int
) -> tuple[HeldRecord, HeldRecord] | None:
    """What rank number `rank` of its lane has to hold, and what a whole model takes on one device.

    None where the model cannot be outlined.
    """
    outline = workload.outline()
    if outline is None:
        return None
    pieces = strategy.pieces(strategy.options, workload.spec, layout, rank, outline)
    optimizer, trains = workload.spec.optimizer, workload.trains
    whole = count_held(map(Piece.whole, outline), optimizer, trains=trains)
    return count_held(pieces, optimizer, trains=trains), whole
