"""Losses by hand arithmetic: the worked example of the module, and what is said where less is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.figures.base import Companions, Launch
from parbench.figures.waterfall import LOSS_MEANINGS, Copies, Levels, waterfall_of
from parbench.records.account import AccountRecord
from tests.support.records import cell, job, rank, trial

SINGLE, DDP = cell(), cell("ddp", 2)
HALF = DDP.model_copy(update={"global_batch": 4})
ACCOUNT = AccountRecord(steps=3, profiled_s=1.0, parts={"forward": 0.8, "communication": 0.15, "pipeline": 0.05})
RATIO = st.floats(0.1, 10)
SHARE = st.floats(0, 0.2)


def launch(
    number: int = 0,
    *,
    measured: float,
    alone: float | None = None,
    together: float | None = None,
    account: AccountRecord | None = ACCOUNT,
    base: float = 1.0,
) -> Launch:
    """A launch of ddp whose speed is `measured` times the base's, which takes `base` seconds; so with the others."""

    def beside(ratio: float | None, models: int) -> tuple[Launch, ...]:
        if ratio is None:
            return ()
        # A companion takes half the batch in as many steps: it is as fast as the base in half the time.
        jobs = tuple(job(model, window_s=base * models / 2 / ratio) for model in range(models))
        return (Launch(trial(DDP, number, ranks=tuple(rank(each.job, jobs=(each,)) for each in jobs)), HALF),)

    own = trial(DDP, number, ranks=(rank(jobs=(job(window_s=base / measured),), account=account),))
    bases = (Launch(trial(SINGLE, number, window_s=base), SINGLE),)
    return Launch(own, DDP, bases, companions=Companions(beside(alone, 1), beside(together, 2)))


def means(*launches: Launch) -> dict[str, float]:
    waterfall = waterfall_of(launches)
    assert waterfall
    return {loss: summary.mean for loss, summary in waterfall.losses.items()}


def test_the_worked_example() -> None:
    shares = {"communication": 0.15, "waiting": 0.05, "pipeline": 0.0, "data": 0.0}
    losses = Levels(2, 1.44, Copies(0.95, 1.85), shares).losses()
    assert losses == pytest.approx(
        {
            "batch": 0.10,
            "contention": 0.05,
            "communication": 0.27,
            "waiting": 0.09,
            "pipeline": 0.0,
            "data": 0.0,
            "remainder": 0.05,
        }
    )


def test_launches_of_one_round() -> None:
    found = means(launch(measured=1.44, alone=0.95, together=1.85))
    assert found == pytest.approx(
        {
            "batch": 0.10,
            "contention": 0.05,
            "communication": 0.27,
            "waiting": 0.0,
            "pipeline": 0.09,
            "data": 0.0,
            "remainder": 0.05,
        }
    )
    assert list(found) == [loss for loss in LOSS_MEANINGS if loss in found]


@given(st.integers(2, 64), RATIO, RATIO, RATIO, st.tuples(SHARE, SHARE, SHARE, SHARE), st.booleans(), st.booleans())
def test_losses_add_up_whatever_is_known(devices, measured, alone, together, idle, has_copies, has_shares) -> None:
    shares = dict(zip(("communication", "waiting", "pipeline", "data"), idle, strict=True)) if has_shares else None
    levels = Levels(devices, measured, Copies(alone, together) if has_copies else None, shares)
    assert math.fsum(levels.losses().values()) == pytest.approx(devices - measured)


def test_the_losses_of_all_rounds_add_up_to_the_speedup_of_the_table() -> None:
    rounds = [
        launch(0, measured=1.2, alone=0.9, together=1.7),
        launch(1, measured=1.5, alone=1.0, together=1.9, base=3.0),
        launch(2, measured=1.6, alone=0.95, together=1.8, base=0.5),
    ]
    waterfall = waterfall_of(rounds)
    assert waterfall
    speedup = (1.2 * 1.5 * 1.6) ** (1 / 3)
    assert waterfall.measured.mean == pytest.approx(speedup)
    assert waterfall.lost == pytest.approx(2 - speedup)
    assert math.fsum(summary.mean for summary in waterfall.losses.values()) == pytest.approx(2 - speedup)
    assert waterfall.losses["batch"].mean == pytest.approx(2 - 2 * (0.9 * 1.0 * 0.95) ** (1 / 3))
    assert waterfall.losses["communication"].mean == pytest.approx(0.15 * speedup / 0.8)


def test_an_interval_is_students_over_rounds_about_the_loss() -> None:
    rounds = [launch(number, measured=1.5, alone=alone, together=1.8) for number, alone in enumerate((0.8, 0.9, 1.0))]
    waterfall = waterfall_of(rounds)
    assert waterfall
    mean, low, high = waterfall.losses["batch"]
    # The batch takes 0.4, 0.2 and 0: a standard deviation of 0.2; Student's t of 2 degrees of freedom is 4.30265.
    reach = 4.302652730 * 0.2 / math.sqrt(3)
    assert mean == pytest.approx(2 - 2 * (0.8 * 0.9 * 1.0) ** (1 / 3))
    assert (low, high) == pytest.approx((mean - reach, mean + reach))
    assert waterfall.losses["communication"][1:] == pytest.approx((0.28125, 0.28125))
    one = waterfall_of(rounds[:1])
    assert one
    assert one.losses["batch"][1:] == (None, None)


def test_without_companions_what_is_not_in_the_step_is_not_split() -> None:
    found = means(launch(measured=1.44))
    assert found == pytest.approx(
        {"unsplit": 0.2, "communication": 0.27, "waiting": 0.0, "pipeline": 0.09, "data": 0.0}
    )
    assert found == means(launch(measured=1.44, alone=0.95)), "one companion alone does not split it"


def test_without_an_account_the_remainder_has_all_of_the_step() -> None:
    found = means(launch(measured=1.44, alone=0.95, together=1.85, account=None))
    assert found == pytest.approx({"batch": 0.10, "contention": 0.05, "remainder": 0.41})


def test_a_step_in_which_nothing_is_computed_is_no_account() -> None:
    idle = AccountRecord(steps=3, profiled_s=1.0, parts={"communication": 1.0})
    assert set(means(launch(measured=1.4, alone=0.9, together=1.8, account=idle))) == {
        "batch",
        "contention",
        "remainder",
    }


def test_what_is_faster_than_its_companions_say_is_a_negative_loss() -> None:
    found = means(launch(measured=1.6, alone=1.05, together=1.9))
    assert found["batch"] == pytest.approx(-0.1)
    assert found["remainder"] == pytest.approx(-0.1)


def test_rounds_that_lack_something_widen_nothing() -> None:
    whole = [launch(number, measured=1.5, alone=0.9, together=1.8) for number in range(2)]
    waterfall = waterfall_of([*whole, launch(2, measured=1.5), launch(3, measured=1.5, account=None)])
    assert waterfall
    assert set(waterfall.losses) == set(LOSS_MEANINGS) - {"unsplit"}
    assert {pytest.approx(summary.mean) == summary.low == summary.high for summary in waterfall.losses.values()}
    apart = waterfall_of([launch(0, measured=1.5, alone=0.9, together=1.8, account=None), launch(1, measured=1.5)])
    assert apart
    assert {summary.low for summary in apart.losses.values()} == {None}, "no round has all of it"


@pytest.mark.parametrize(
    "launches",
    [
        pytest.param([], id="nothing was measured"),
        pytest.param([launch(measured=1.5, account=None)], id="nothing explains it"),
        pytest.param([Launch(trial(DDP, ranks=(rank(account=ACCOUNT),)), DDP)], id="no base"),
        pytest.param([Launch(trial(), SINGLE, (Launch(trial(), SINGLE),))], id="one device"),
        pytest.param([Launch(trial(), cell("pool", 2, models=2), (Launch(trial(), SINGLE),))], id="several models"),
    ],
)
def test_what_has_no_waterfall(launches) -> None:
    assert waterfall_of(launches) is None
