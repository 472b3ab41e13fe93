"""The figures of what memory holds, from made-up accounts."""

import pytest

from parbench.figures.base import Launch
from parbench.figures.definitions import FIGURES
from parbench.figures.memory_account import first_account, fullest_account
from parbench.records.memory_account import MemoryAccountRecord, MemoryPartsRecord
from tests.support.memory import MIB, account, accounted
from tests.support.records import cell, rank, trial

CELL = cell("pipe", 2)
FIRST = account(parameters=10, optimizer_state=20, gradients=10, activations=5, buffers=1, rest=2)
SECOND = account(parameters=8, optimizer_state=16, gradients=0, activations=40, buffers=1, rest=4)
HIDDEN = MemoryAccountRecord(largest=MemoryPartsRecord(parameters=10**9))
"""Of compiled code on CPU: the peak is not known."""


def figures(*accounts: MemoryAccountRecord | None) -> dict[str, float | None]:
    ranks = tuple(accounted(number, 100, each) if each else rank(number) for number, each in enumerate(accounts))
    launch = Launch(trial(CELL, ranks=ranks), CELL)
    return {name: figure.of(launch) for name, figure in FIGURES.items() if name.endswith("_bytes") and figure.of}


def test_the_fullest_rank_is_taken_apart() -> None:
    found = figures(FIRST, SECOND, HIDDEN, None)
    assert found["tensor_peak_bytes"] == 69 * MIB
    assert [found[f"{part}_bytes"] for part in ("parameter", "optimizer_state", "gradient")] == [8 * MIB, 16 * MIB, 0]
    assert [found[f"{part}_bytes"] for part in ("activation", "buffer", "other_tensor")] == [40 * MIB, MIB, 4 * MIB]


@pytest.mark.parametrize("accounts", [(), (None,), (HIDDEN,)])
def test_without_an_account_of_a_peak_there_is_no_figure(accounts) -> None:
    found = figures(*accounts)
    assert found["tensor_peak_bytes"] is found["parameter_bytes"] is None


def test_a_cell_has_the_account_of_its_first_launch_that_has_one() -> None:
    launches = [trial(CELL, ranks=(rank(0),)), trial(CELL, ranks=(accounted(0, 1, FIRST), accounted(1, 1, SECOND)))]
    assert first_account(launches) == SECOND == fullest_account(launches[1])
    assert first_account(launches[:1]) is None
