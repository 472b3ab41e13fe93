"""Numbers as people read them."""

import pytest

from parbench.text import with_prefix


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (6.12e10, "FLOP/s", "61.2 GFLOP/s"),
        (1.12e-4, "s", "112 µs"),
        (0.5, "s", "500 ms"),
        (1.0, "s", "1.00 s"),
        (7.9e8, "B/s", "790 MB/s"),
        (-2500.0, "B", "-2.50 kB"),
        (0.0, "s", "0 s"),
        (1e-15, "s", "1e-06 ns"),
    ],
)
def test_a_prefix_leaves_three_digits_of_a_number(number: float, unit: str, text: str) -> None:
    assert with_prefix(number, unit) == text
