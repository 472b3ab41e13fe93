"""Rates over made-up runs with a seed. The bounds are four standard errors of a rate wide."""

import pytest

from tests.verdict.tie_rates import Setting, lines, rates

RUNS = 150


@pytest.mark.parametrize("rounds", [3, 5])
def test_equal_cells_tie_and_the_interval_covers_what_is_true(rounds: int) -> None:
    row = rates(Setting(rounds, 0.0), RUNS)
    assert row.false < 0.05 + 0.08
    assert row.tie == 1 - row.false
    assert row.coverage > 0.95 - 0.08


def test_what_is_15_percent_slower_seldom_ties_after_three_rounds_and_often_did() -> None:
    row = rates(Setting(3, 0.15), RUNS)
    assert row.tie_before > 0.2
    assert row.tie < 0.1
    assert row.false == 0


def test_a_kind_that_is_noisier_is_found_out() -> None:
    row = rates(Setting(5, 0.0, factor=2.5), RUNS)
    assert row.false < 0.05 + 0.08
    assert row.coverage > 0.95 - 0.08


def test_the_table_has_a_row_for_each_setting() -> None:
    assert len(list(lines(2))) == 2 + 16
