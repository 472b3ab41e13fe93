"""Moments of exchanges beside the calls that are known to be made."""

import pytest

from parbench.measure.account.exchanges import sum_up_exchanges
from parbench.measure.account.trace import Trace
from parbench.measure.probes.traffic import Call
from parbench.records.account import ExchangeRecord

GATHER = Call("all_gather", "data", 4, 100)
SCATTER = Call("reduce_scatter", "data", 4, 800)
SPLIT = Call("all_reduce", "tensor", 2, 40)


def trace(**exchanges: list[tuple[int, int]]) -> Trace:
    """Two steps of 100 ns, in which this is exchanged."""
    return Trace(steps=[(0, 100), (100, 200)], exchanges=exchanges)


def test_moments_belong_to_the_calls_in_the_order_in_which_they_begin() -> None:
    watched = trace(
        all_gather=[(0, 10), (100, 130)],
        # gloo reduces all to scatter it; these two overlap in the first step.
        all_reduce=[(20, 30), (25, 45), (150, 160), (140, 150)],
    )
    assert sum_up_exchanges(watched, [GATHER, SPLIT, SCATTER], steps=2) == (
        ExchangeRecord(name="all_gather", axis="data", ranks=4, calls=1, seconds=20e-9, given_bytes=100),
        ExchangeRecord(name="all_reduce", axis="tensor", ranks=2, calls=1, seconds=10e-9, given_bytes=40),
        ExchangeRecord(name="reduce_scatter", axis="data", ranks=4, calls=1, seconds=15e-9, given_bytes=800),
    )


def test_time_in_which_two_calls_run_counts_once() -> None:
    watched = trace(all_reduce=[(0, 30), (10, 40), (100, 120), (110, 160)])
    (record,) = sum_up_exchanges(watched, [SPLIT, SPLIT], steps=2)
    assert (record.calls, record.seconds, record.given_bytes) == (2, 50e-9, 80)


def test_a_cycle_that_exchanges_once_in_two_steps_has_half_a_call_in_each() -> None:
    (record,) = sum_up_exchanges(trace(all_reduce=[(120, 140)]), [SPLIT], steps=2)
    assert (record.calls, record.seconds, record.given_bytes) == (0.5, 10e-9, 20)


@pytest.mark.parametrize("calls", [None, [], [SPLIT, SPLIT], [GATHER]])
def test_moments_that_fit_no_calls_are_known_by_name_only(calls: list[Call] | None) -> None:
    watched = trace(all_reduce=[(0, 10), (20, 30), (120, 140)])
    assert sum_up_exchanges(watched, calls, steps=2) == (ExchangeRecord(name="all_reduce", calls=1.5, seconds=20e-9),)


def test_what_begins_outside_of_the_steps_is_left_out() -> None:
    watched = trace(all_reduce=[(-20, 10), (50, 60), (150, 160), (200, 220)])
    (record,) = sum_up_exchanges(watched, [SPLIT], steps=2)
    assert (record.calls, record.seconds) == (1, 10e-9)
