"""Variances that learn from each other."""

import math

import numpy as np
import pytest

from parbench.check.moderation import NO_PRIOR, Prior, prior_of
from parbench.check.significance import paired


def test_the_prior_of_simulated_variances_is_found() -> None:
    """True variances from a scaled inverse chi-square distribution, which is the model's."""
    rng, df = np.random.default_rng(0), 9
    true = 0.04 * 6 / rng.chisquare(6, 4000)
    prior = prior_of(list(true * rng.chisquare(df, 4000) / df), df)
    assert prior.df == pytest.approx(6, rel=0.15)
    assert prior.variance == pytest.approx(0.04, rel=0.05)


def test_cells_that_are_alike_share_one_variance_and_few_cells_share_none() -> None:
    same = prior_of(list(np.random.default_rng(1).chisquare(4, 40) / 4 / 10), 400)
    assert same.df < 30, "these differ by far more than 400 degrees of freedom allow"
    alike = prior_of([0.01, 0.0101, 0.0099, 0.01, 0.0102], 4)
    assert (math.isinf(alike.df), prior_of([0.01, 0.02, 0.03], 4)) == (True, NO_PRIOR)


def test_the_prior_weighs_no_more_than_the_cells_own_rounds() -> None:
    assert Prior(0.04, math.inf).moderate(0.02, 4) == pytest.approx((0.03, 8))
    assert Prior(0.04, 2).moderate(0.01, 4) == pytest.approx((0.02, 6))
    assert NO_PRIOR.moderate(0.02, 4) == (0.02, 4)


def test_a_lucky_variance_is_no_longer_believed() -> None:
    """Of five rounds that happen to agree, the t-test alone makes a certainty."""
    lucky = [0.05, 0.0501, 0.0499, 0.05, 0.0502]
    usual = Prior(variance=0.05**2, df=10)
    assert paired(lucky, 0.02).p_worse < 1e-6
    assert paired(lucky, 0.02, usual).p_worse > 0.01
    assert paired([0.0] * 5, 0.02, usual).interval == (0.0, 0.0), "what never varies stays exact"
