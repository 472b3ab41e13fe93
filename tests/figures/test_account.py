"""Shares of a step over ranks, by hand."""

import pytest

from parbench.figures.account import FIGURES, disturbance, exchanges_by_time, mean_shares, shares_of_step
from parbench.figures.base import Launch
from parbench.records.account import AccountRecord, ExchangeRecord
from tests.support.records import cell, job, rank, trial


def account(**parts: float) -> AccountRecord:
    return AccountRecord(steps=3, profiled_s=sum(parts.values()), parts=parts)


UNEVEN = trial(
    ranks=(
        rank(0, account=account(forward=0.08, communication=0.04)),
        rank(1, account=account(forward=0.10, communication=0.02)),
    )
)


def test_the_slowest_rank_is_waited_for_and_the_rest_is_exchange() -> None:
    shares = shares_of_step(UNEVEN)
    assert shares["forward"] == pytest.approx(0.18 / 0.24)
    assert shares["waiting"] == pytest.approx(0.02 / 0.24)
    assert shares["communication"] == pytest.approx(0.04 / 0.24)
    assert sum(shares.values()) == pytest.approx(1)


def test_lanes_do_not_wait_for_each_other() -> None:
    lanes = trial(
        ranks=(
            rank(0, lane=0, account=account(forward=0.08, communication=0.04)),
            rank(1, lane=1, account=account(forward=0.10, communication=0.02)),
        )
    )
    assert shares_of_step(lanes)["waiting"] == 0


def test_a_rank_that_lacks_an_account_is_left_out() -> None:
    half = trial(ranks=(rank(0, account=account(forward=0.1)), rank(1)))
    assert shares_of_step(half)["forward"] == 1
    assert shares_of_step(trial()) == {}
    assert mean_shares([trial()]) == {}


def test_shares_are_averaged_over_trials() -> None:
    one, other = (trial(ranks=(rank(account=account(forward=f, host=1 - f)),)) for f in (0.4, 0.8))
    assert mean_shares([one, other, trial()])["forward"] == pytest.approx(0.6)
    assert sum(mean_shares([one, other]).values()) == pytest.approx(1)


def test_what_is_exchanged_is_sorted_by_the_time_of_all_ranks() -> None:
    one, other = (
        account(forward=0.1).model_copy(
            update={"exchanges": tuple(ExchangeRecord(name=name, calls=1, seconds=s) for name, s in seconds.items())}
        )
        for seconds in ({"send": 0.3, "all_reduce": 0.2}, {"all_reduce": 0.2})
    )
    both = trial(ranks=(rank(0, account=one), rank(1, account=other), rank(2)))
    assert exchanges_by_time([both, trial()]) == ["all_reduce", "send"]
    assert exchanges_by_time([trial()]) == []


def test_the_disturbance_is_that_of_the_slowest_rank() -> None:
    uneven = trial(
        ranks=(
            rank(0, account=account(forward=0.12), jobs=(job(steps=10, window_s=1.0),)),
            rank(1, account=account(forward=0.25), jobs=(job(steps=99), job(1, steps=10, window_s=2.0))),
        )
    )
    assert disturbance([uneven]) == pytest.approx(1.25)
    assert disturbance([trial()]) is None


def test_figures_read_the_shares() -> None:
    values = {figure.name: figure.of(Launch(UNEVEN, cell())) for figure in FIGURES if figure.of}
    assert values["exposed_comm"] == pytest.approx(0.04 / 0.24)
    assert values["waiting"] == pytest.approx(0.02 / 0.24)
    assert values["data_wait"] == values["unexplained"] == values["host_overhead"] == 0
    assert values["overlapped_comm"] is None
    assert values["profiled_step"] == pytest.approx(0.12 / 0.2)
    assert {figure.name for figure in FIGURES if figure.of and figure.of(Launch(trial(), cell())) is not None} == set()
