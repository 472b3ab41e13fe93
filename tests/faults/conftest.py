from collections.abc import Iterator

import pytest

from tests.faults.scenarios import end_offspring


@pytest.fixture(autouse=True)
def no_offspring() -> Iterator[None]:
    """Ends what the ranks of a failed test have started: the next test would take it for its own."""
    yield
    end_offspring()
