import math

import numpy as np
import pytest
from scipy.stats import studentized_range, ttest_rel

from parbench.verdict.contest import Contest, Difference
from parbench.verdict.spread import Spread

KINDS = {f"cell {index}": "kind" for index in range(20)}


def samples_of(rows):
    return {f"cell {index}": dict(enumerate(map(float, row))) for index, row in enumerate(rows)}


def drawn(centers, rounds=5, noise=0.04, seed=0):
    rng = np.random.default_rng(seed)
    return samples_of(np.array(centers)[:, None] + rng.normal(0, noise, (len(centers), rounds)))


def test_two_cells_alone_are_compared_by_the_paired_t_test():
    one, other = [0.3, 0.5, 0.1, 0.4], [0.2, 0.1, 0.1, 0.2]
    difference = Contest(samples_of([one, other]), KINDS).difference("cell 0", "cell 1")
    expected = ttest_rel(one, other)
    assert difference.p == pytest.approx(expected.pvalue)
    assert difference.interval() == pytest.approx(tuple(expected.confidence_interval()))


def test_a_difference_by_hand():
    # The residuals of the three cells have a variance of 1 with 4 degrees of freedom (see test_spread).
    difference = Contest(samples_of([[1, 2, 3], [3, 6, 6], [5, 4, 6]]), KINDS).difference("cell 1", "cell 0")
    assert (difference.estimate, difference.df) == (pytest.approx(3), pytest.approx(4))
    assert difference.error == pytest.approx(math.sqrt(2 / 3))


def test_variances_that_are_not_pooled_have_welchs_degrees_of_freedom(monkeypatch):
    spreads = {"cell 0": Spread("calm", 1.0, 10.0), "cell 1": Spread("wild", 4.0, 2.0)}
    monkeypatch.setattr("parbench.verdict.contest.spreads_of", lambda *_: spreads)
    difference = Contest(samples_of([[1, 2], [0, 0]]), KINDS).difference("cell 0", "cell 1")
    assert difference.error == pytest.approx(math.sqrt(5 / 2))
    assert difference.df == pytest.approx(25 / (1 / 10 + 16 / 2))


def test_only_rounds_that_both_have_are_compared():
    samples = {"cell 0": {"a": 1.0, "b": 2.0}, "cell 1": {"b": 1.5, "c": 9.0}, "cell 2": {"a": 1.0, "b": 1.9, "c": 8.0}}
    contest = Contest(samples, KINDS)
    assert contest.difference("cell 0", "cell 1").estimate == pytest.approx(0.5)
    apart = Contest({**samples, "cell 3": {"d": 1.0}}, KINDS)
    assert apart.difference("cell 0", "cell 3") is None
    assert apart.ties_with("cell 0", ["cell 3"]).cells == ["cell 3"]
    assert contest.difference("cell 0", "absent") is None


def test_three_rounds_of_many_cells_tell_15_percent_apart():
    centers = [0.0, math.log(0.85), *[math.log(0.5)] * 8]
    ties = Contest(drawn(centers, rounds=3, noise=0.045), KINDS).ties_with(
        "cell 0", [f"cell {n}" for n in range(1, 10)]
    )
    assert ties == ([], None)


def test_ties_are_corrected_for_how_many_there_are():
    # One of many equal cells is always ahead of some other by more than two standard errors.
    samples = drawn([0.0] * 20, rounds=5)
    best = max(samples, key=lambda cell: sum(samples[cell].values()))
    rest = [cell for cell in samples if cell != best]
    contest = Contest(samples, KINDS)
    assert min(contest.difference(best, cell).p for cell in rest) < 0.01
    assert contest.ties_with(best, rest).cells == rest


def test_the_lowest_of_equal_cells_is_compared_as_the_lowest_of_so_many():
    difference = Difference(0.1, 0.035, 30.0)
    assert difference.p < 0.01
    assert difference.falls_among(3)
    assert not difference.falls_among(10)
    critical = studentized_range.isf(0.05, 10, 30.0) / math.sqrt(2)
    assert Difference(0.035 * critical * 1.01, 0.035, 30.0).falls_among(10)


def test_what_would_have_been_seen_is_found_by_the_stated_share_of_tests():
    true = Difference(0.0, 0.04, 12.0)
    size = true.detectable(2)
    rng = np.random.default_rng(0)
    errors = 0.04 * np.sqrt(rng.chisquare(12, 4000) / 12)
    estimates = rng.normal(size, 0.04, 4000)
    assert np.mean([Difference(*each, 12.0).p < 0.05 for each in zip(estimates, errors, strict=True)]) == pytest.approx(
        0.8, abs=0.02
    )


def test_what_never_varies_needs_no_test():
    contest = Contest(samples_of([[1, 2, 3], [1, 2, 3], [2, 3, 4]]), KINDS)
    assert contest.ties_with("cell 2", ["cell 0", "cell 1"]) == ([], None)
    assert contest.ties_with("cell 0", ["cell 1"]) == (["cell 1"], 0.0)
    assert contest.difference("cell 2", "cell 0").interval() == (1.0, 1.0)


def test_nothing_can_be_told_from_one_round():
    contest = Contest(samples_of([[1.0], [2.0]]), KINDS)
    assert contest.ties_with("cell 1", ["cell 0"]) == (["cell 0"], None)


def test_cells_are_apart_in_either_direction():
    contest = Contest(drawn([0.0, 0.5, -0.5, 0.01]), KINDS)
    assert contest.apart_from("cell 0", ["cell 1", "cell 2", "cell 3"]) == {"cell 1", "cell 2"}
