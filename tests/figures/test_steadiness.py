"""A run says where its steps drifted: up or down, after a fixed warm-up as well, and never because of one slow step."""

import numpy as np
import pytest

from parbench.figures.steadiness import are_steady, cycle_means, window_drift
from tests.support.records import job, rank, trial


def launch(times, **changes):
    return trial(ranks=(rank(jobs=(job(steps=len(times), step_times_s=tuple(times), **changes),)),))


RISING = [0.1 * (1 + share) for share in np.linspace(0, 0.2, 12)]


@pytest.mark.parametrize(
    ("times", "steady"),
    [
        ([0.1] * 12, True),
        (RISING, False),
        (RISING[::-1], False),
        ([0.1 * (1 + share) for share in np.linspace(0, 0.04, 12)], True),
        ([0.1] * 11 + [3.0], True),
        ([0.1, 0.14] * 6, True),
        ([0.1] * 6 + [0.2] * 6, False),
        ([0.1, 0.2, 0.3, 0.4, 0.5], None),
        ([], None),
    ],
    ids=[
        "equal", "slower and slower", "faster and faster", "by less than 5 %", "one slow step", "by turns",
        "slower from the middle on", "too few to tell", "not recorded",
    ],
)  # fmt: skip
def test_steps_are_steady_unless_they_drift(times, steady):
    assert are_steady([launch(times)]) is steady


def test_drift_is_the_median_of_the_last_third_over_that_of_the_first():
    drift = window_drift([0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.5, 0.5, 0.9])
    assert drift is not None
    assert drift.change == pytest.approx(0.5 / 0.1 - 1)
    assert drift.p_value < 0.01


def test_steps_that_differ_by_design_are_compared_over_whole_cycles():
    times = [0.1, 0.1, 0.1, 0.9] * 8 + [0.1]
    assert cycle_means(launch(times, cycle=4)) == pytest.approx([0.3] * 8)
    assert are_steady([launch(times, cycle=4)]) is True
    slower = [seconds * (1 + 0.05 * (index // 4)) for index, seconds in enumerate(times)]
    assert are_steady([launch(slower, cycle=4)]) is False


def test_one_launch_that_drifts_is_enough_and_a_warm_up_that_gave_up_is_too():
    assert are_steady([launch([0.1] * 12)] * 4 + [launch(RISING)]) is False
    assert are_steady([launch([0.1] * 12), launch([0.1] * 12, steady=False)]) is False


def test_steps_that_vary_by_chance_are_seldom_called_unsteady():
    rng = np.random.default_rng(0)
    cells = [[launch(np.exp(rng.normal(0, 0.2, 12))) for _ in range(5)] for _ in range(300)]
    assert sum(are_steady(cell) is False for cell in cells) <= 9


def test_a_drift_of_a_fifth_is_mostly_seen_through_noise():
    rng = np.random.default_rng(0)
    cells = [[launch(np.array(RISING) * np.exp(rng.normal(0, 0.02, 12))) for _ in range(5)] for _ in range(100)]
    assert sum(are_steady(cell) is False for cell in cells) >= 95
