"""Made-up accounts of memory."""

from typing import Any

from parbench.records.memory_account import HeldRecord, MemoryAccountRecord, MemoryPartsRecord
from parbench.records.trial import MemoryRecord, RankRecord
from tests.support.records import rank

MIB = 2**20


def account(
    *, whole: tuple[int, int, int] | None = None, expected: tuple[int, int, int] | None = None, **parts: int
) -> MemoryAccountRecord:
    """An account with these parts at the peak, in MiB, and no more of them at any other moment.

    `whole` and `expected` are parameters, gradients and optimizer state in MiB; `expected` is what is held by default.
    """
    held = MemoryPartsRecord(**{name: size * MIB for name, size in parts.items()})
    own = HeldRecord(parameters=held.parameters, gradients=held.gradients, optimizer_state=held.optimizer_state)
    return MemoryAccountRecord(
        largest=held,
        at_peak=held,
        expected=_held(expected) if expected else own,
        whole=_held(whole) if whole else own,
    )


def _held(sizes: tuple[int, int, int]) -> HeldRecord:
    parameters, gradients, state = (size * MIB for size in sizes)
    return HeldRecord(parameters=parameters, gradients=gradients, optimizer_state=state)


def accounted(number: int, measured: int, of: MemoryAccountRecord, **changes: Any) -> RankRecord:
    """A rank with this account, of which `measured` MiB were resident."""
    return rank(number, memory=MemoryRecord(resident_growth=measured * MIB), memory_account=of, **changes)
