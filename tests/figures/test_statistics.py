import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from parbench.figures.statistics import (
    RoundId,
    deviation_between_sessions,
    mean_of_round,
    mean_over_rounds,
    summarise,
    summarise_rounds,
)

SPEEDS = st.lists(st.floats(1e-3, 1e9), min_size=2, max_size=20)


def test_an_interval_by_hand():
    # The logarithms are 0, 1 and 2: mean 1, standard deviation 1, and Student's t of 2 degrees of freedom is 4.30265.
    summary = summarise([1.0, math.e, math.e**2])
    assert summary.mean == pytest.approx(math.e)
    assert summary.low == pytest.approx(math.exp(1 - 4.302652730 / math.sqrt(3)))
    assert summary.high == pytest.approx(math.exp(1 + 4.302652730 / math.sqrt(3)))


def test_the_mean_is_geometric():
    assert summarise([2.0, 8.0]).mean == pytest.approx(4.0)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_is_the_t_tests_on_logarithms(confidence):
    values = [910.0, 1000.0, 1020.0, 990.0, 1300.0]
    summary = summarise(values, confidence)
    interval = stats.ttest_1samp([math.log(value) for value in values], 0.0).confidence_interval(confidence)
    assert summary == pytest.approx((stats.gmean(values), math.exp(interval.low), math.exp(interval.high)))


def test_one_value_says_nothing_about_spread():
    summary = summarise([1234.5])
    assert summary.mean == pytest.approx(1234.5)
    assert summary[1:] == (None, None)


def test_equal_values_have_an_interval_without_width():
    summary = summarise([1234.5] * 3)
    assert summary.low == summary.mean == summary.high == pytest.approx(1234.5)


@pytest.mark.parametrize("values", [[2.0, 2.0000000000000004, 2.0], [1e5, 1e5 + 1e-9]])
def test_values_that_differ_by_a_rounding_error_have_a_narrow_interval_and_no_warning(values):
    summary = summarise(values)
    assert summary.low <= summary.mean <= summary.high
    assert summary[1:] == pytest.approx((summary.mean, summary.mean))


@given(SPEEDS)
def test_the_mean_lies_inside_its_interval(values):
    mean, low, high = summarise(values)
    assert low is not None
    assert high is not None
    assert low <= mean * (1 + 1e-12)
    assert mean <= high * (1 + 1e-12)


@given(SPEEDS, st.floats(0.1, 10.0))
def test_a_machine_twice_as_fast_scales_the_summary_alike(values, factor):
    scaled = summarise([value * factor for value in values])
    assert scaled.mean == pytest.approx(summarise(values).mean * factor)


@pytest.mark.parametrize("values", [[], [0.0], [1.0, -1.0]])
def test_what_has_no_geometric_mean_is_an_error(values):
    with pytest.raises(ValueError, match="positive values"):
        summarise(values)


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        pytest.param([0.1], 0.1, id="one launch is as it is, to the last digit"),
        pytest.param([2.0, 8.0], 4.0, id="a geometric mean"),
        pytest.param([0.0, 1.0, 8.0], 1.0, id="the median where there is no geometric mean"),
    ],
)
def test_a_round_has_one_value(values, mean):
    assert mean_of_round(values) == (mean if len(values) == 1 else pytest.approx(mean))


def sessions_of(*sessions: list[float]) -> dict[RoundId, float]:
    return {
        RoundId(session, number): value
        for session, values in enumerate(sessions)
        for number, value in enumerate(values)
    }


def test_an_interval_over_sessions_by_hand():
    # Means of logarithms 0, 1 and 2, each of rounds that differ by 0.2: Student's t of 2 degrees of freedom is 4.30265.
    around = [[math.exp(center - 0.1), math.exp(center + 0.1)] for center in (0, 1, 2)]
    summary = summarise_rounds(sessions_of(*around))
    reach = 4.302652730 / math.sqrt(3)
    assert summary == pytest.approx((math.e, math.exp(1 - reach), math.exp(1 + reach)))
    # The variance of the means is 1, of which rounds explain 0.02 / 2.
    assert deviation_between_sessions(sessions_of(*around)) == pytest.approx(math.sqrt(1 - 0.01))


def test_sessions_that_agree_by_luck_are_no_surer_than_their_rounds():
    # Both means are 0. The variance of a round is 0.02, of a session's mean 0.01; t of 2 degrees of freedom is 4.30265.
    summary = summarise_rounds(sessions_of(*[[math.exp(-0.1), math.exp(0.1)]] * 2))
    assert summary.high == pytest.approx(math.exp(4.302652730 * math.sqrt(0.01 / 2)))
    assert deviation_between_sessions(sessions_of(*[[math.exp(-0.1), math.exp(0.1)]] * 2)) == 0.0


def test_values_of_any_sign_have_an_arithmetic_mean_and_the_same_intervals():
    # Rounds of -1, 0 and 1: a standard deviation of 1, and Student's t of 2 degrees of freedom is 4.30265.
    reach = 4.302652730 / math.sqrt(3)
    assert mean_over_rounds(sessions_of([-1.0, 0.0, 1.0])) == pytest.approx((0.0, -reach, reach))
    assert mean_over_rounds(sessions_of([-1.0])) == (-1.0, None, None)
    assert mean_over_rounds(sessions_of([0.0] * 3)) == (0.0, 0.0, 0.0)
    around = [[center - 0.1, center + 0.1] for center in (0.0, 1.0, 2.0)]
    assert mean_over_rounds(sessions_of(*around)) == pytest.approx((1.0, 1 - reach, 1 + reach))
    with pytest.raises(ValueError, match="no values"):
        mean_over_rounds({})


def test_one_session_says_nothing_of_others():
    values = [910.0, 1000.0, 1020.0]
    assert summarise_rounds(sessions_of(values)) == summarise(values)
    assert math.isnan(deviation_between_sessions(sessions_of(values)))


def test_sessions_of_one_round_each_are_observations_as_rounds_are():
    assert summarise_rounds(sessions_of([1.0], [2.0], [4.0])) == pytest.approx(summarise([1.0, 2.0, 4.0]))


@pytest.mark.parametrize(
    ("sessions", "rounds", "between"),
    [(2, 5, 0.05), (3, 5, 0.05), (3, 5, 0.0), (6, 3, 0.02), (5, 7, 0.10)],
)
def test_the_interval_over_sessions_covers_the_truth_where_the_one_over_rounds_does_not(sessions, rounds, between):
    """Claims over days, simulated: launches vary by 5 %, sessions by up to 10 %; the truth is 1."""
    rng, claims = np.random.default_rng(14), 20_000
    logs = rng.normal(0, between, (claims, sessions, 1)) + rng.normal(0, 0.05, (claims, sessions, rounds))
    means = logs.mean(axis=2)
    explained = logs.var(axis=2, ddof=1).mean(axis=1) / rounds
    reach = np.maximum(
        stats.t.ppf(0.975, sessions - 1) * stats.sem(means, axis=1),
        stats.t.ppf(0.975, sessions * (rounds - 1)) * np.sqrt(explained / sessions),
    )
    for claim in range(20):  # the arrays are what the function computes
        low, high = means[claim].mean() - reach[claim], means[claim].mean() + reach[claim]
        summary = summarise_rounds(sessions_of(*np.exp(logs[claim]).tolist()))
        assert summary[1:] == pytest.approx((math.exp(low), math.exp(high)))
    covered = np.mean(abs(means.mean(axis=1)) <= reach)
    assert covered > 0.945, "three standard errors of the simulation below 95 %"
    flat = logs.reshape(claims, -1)
    reach_over_rounds = stats.t.ppf(0.975, flat.shape[1] - 1) * stats.sem(flat, axis=1)
    if between >= 0.05:
        assert np.mean(abs(flat.mean(axis=1)) <= reach_over_rounds) < 0.85
