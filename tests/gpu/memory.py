"""Whether memory that was predicted on fake tensors is what torch allocates."""

from collections.abc import Iterator
from typing import Any

from tests.gpu.campaigns import SCENARIOS, run_program
from tests.gpu.ledger import Bench, Claim

TOLERANCE, SLACK = 0.03, 100 * 2**20


def compare_memory(bench: Bench) -> Iterator[Claim]:
    """The allocator's peak over a few steps, against the predicted one."""
    cells, errors = run_program(bench, "memory_of_one", SCENARIOS / "memory.yaml")
    far = {name: cell for name, cell in cells.items() if not is_near(cell)}
    yield Claim(
        f"the peaks of {len(cells)} cells are within {TOLERANCE:.0%} + {SLACK // 2**20} MiB of the predicted ones",
        bool(cells) and not errors and not far,
        {"cells": cells, "far": sorted(far), "errors": errors},
    )


def is_near(cell: dict[str, Any]) -> bool:
    """Whether the allocated bytes are known, and close to the predicted ones."""
    allocated = cell["allocated"]
    return allocated is not None and abs(allocated - cell["predicted"]) <= TOLERANCE * allocated + SLACK
