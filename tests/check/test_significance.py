"""The tests themselves, and what they say they can find."""

import numpy as np
import pytest
from scipy.stats import norm, ttest_ind

from parbench.check.significance import paired, within_run


def test_tests_of_samples_without_spread_are_exact() -> None:
    assert within_run([2.0, 2.0], [1.0, 1.0], 0.05).p_worse == 0
    assert within_run([1.0, 1.0], [1.0, 1.0], 0.05).p_worse == 1
    assert within_run([1.0, 1.0], [1.0, 1.1], 0.05).p_worse > 0.5
    assert paired([0.0, 0.0], 0.05).interval == (0, 0)


def sample(count: int, noise: float = 0.03) -> list[float]:
    """Normal quantiles around 0 whose standard deviation is `noise`."""
    quantiles = norm.ppf((np.arange(count) + 0.5) / count)
    return list(quantiles / quantiles.std(ddof=1) * noise)


@pytest.mark.parametrize("counts", [(5, 45), (45, 5), (10, 10)])
def test_the_detectable_effect_is_found_with_the_power_that_is_stated(counts: tuple[int, int]) -> None:
    alpha, power, margin = 0.01, 0.8, 0.05
    effect = within_run(*map(sample, counts), margin).detectable(alpha, power)
    rng = np.random.default_rng(3)
    new, old = (rng.normal(0, 0.03, (count, 4000)) for count in counts)
    shifted = new + effect - np.log1p(margin)
    p_values = ttest_ind(shifted, old, axis=0, equal_var=False, alternative="greater").pvalue
    assert np.mean(p_values < alpha) == pytest.approx(power, abs=0.03)
    one = within_run(list(new[:, 0] + effect), list(old[:, 0]), margin)
    assert one.p_worse == pytest.approx(p_values[0]), "it is parbench's test that was simulated"


@pytest.mark.parametrize("counts", [(5, 45), (45, 5), (5, 5)])
def test_the_rounds_that_are_said_to_be_needed_find_the_effect(counts: tuple[int, int]) -> None:
    effect, alpha, power = 0.1, 0.01, 0.8
    now = within_run(*map(sample, counts), 0.05)
    needed = now.rounds_needed(effect, alpha, power)
    assert needed is not None
    assert now.detectable(alpha, power) > effect
    assert within_run(*map(sample, needed), 0.05).detectable(alpha, power) == pytest.approx(effect, rel=0.06)
    pairs = paired(sample(5), 0.05)
    assert pairs.rounds_needed(pairs.detectable(alpha, power) + 1e-6, alpha, power) == (5, 5)
