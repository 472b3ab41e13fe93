"""Group-sequential levels."""

import numpy as np
import pytest
from scipy.stats import norm

from parbench.check.looks import Looks, looks_between


def test_there_is_a_look_after_every_first_rounds_and_after_the_last() -> None:
    assert looks_between(10, 40).rounds == (10, 20, 30, 40)
    assert looks_between(10, 35).rounds == (10, 20, 30, 35)
    assert looks_between(10, 10).rounds == (10,)


def test_all_looks_together_raise_as_many_false_alarms_as_alpha_says() -> None:
    looks, alpha = looks_between(10, 40), 0.05
    bounds = norm.isf(looks.levels(alpha))
    steps = np.random.default_rng(0).normal(0, 1, (200_000, 4))
    scores = steps.cumsum(axis=1) / np.sqrt([1, 2, 3, 4])
    for look in range(4):
        crossed = (scores[:, : look + 1] > bounds[: look + 1]).any(axis=1).mean()
        assert crossed == pytest.approx(alpha * (look + 1) / 4, abs=0.0015)


def test_two_equal_looks_have_the_boundary_that_books_give() -> None:
    """Pocock's for two looks at one-sided 2.5 % is 2.178 at both; that of proportional spending lies around it."""
    first, second = norm.isf(looks_between(5, 10).levels(0.025))
    assert first == pytest.approx(norm.isf(0.0125), abs=1e-3)
    assert second < 2.178 < first


def test_the_repeated_p_value_is_the_alpha_at_which_the_design_rejects() -> None:
    looks = looks_between(10, 40)
    for alpha in (0.03, 4e-4, 2e-7):
        for look, level in enumerate(looks.levels(alpha)):
            assert looks.repeated_p(level, look) == pytest.approx(alpha, rel=0.02)
    assert looks.repeated_p(0.9, 0) == 1.0
    assert looks.repeated_p(0.0, 3) == 0.0
    assert Looks((7,)).repeated_p(0.123, 0) == 0.123
