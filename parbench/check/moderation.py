"""Moderated variances: few rounds say little of a cell's noise, other cells' rounds say what noise is usual.

Each cell's variance is drawn towards the usual one, the less the more rounds it has and the more the cells differ: the
empirical Bayes estimate of Smyth 2004, "Linear models and empirical Bayes methods for assessing differential
expression", Stat. Appl. Genet. Mol. Biol. 3(1), whose t-test has the prior's degrees of freedom beside its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_CELLS = 4
"""Of fewer the spread of their variances is not known."""

LEAST_DF, MOST_DF = 0.01, 10_000.0
"""A prior worth less is none, one worth more is as good as certain."""


@dataclass(frozen=True)
class Prior:
    """What other cells say of a variance: the usual one, and of how many degrees of freedom that is worth."""

    variance: float
    df: float

    def moderate(self, variance: float, df: float) -> tuple[float, float]:
        """A cell's variance of `df` degrees of freedom together with the usual one, and the degrees of both.

        The prior never weighs more than the cell's own rounds: what cells share, such as a noisy minute, makes their
        variances look more alike than they are.
        """
        weight = min(self.df, df)
        total = df + weight
        return (df * variance + weight * self.variance) / total, total


NO_PRIOR = Prior(variance=0.0, df=0.0)


def prior_of(variances: Sequence[float], df: float) -> Prior:
    """The prior of variances that have `df` degrees of freedom each, by the moments of their logarithms.

    Of independent cells whose true variances are alike, the logarithms vary by trigamma(df / 2); what they vary beyond
    that is the cells' own, and equals trigamma of half the prior's degrees of freedom (Smyth 2004, section 6.2).
    """
    from numpy import log
    from scipy.optimize import brentq
    from scipy.special import digamma, zeta

    positive = [each for each in variances if each > 0]
    if len(positive) < LEAST_CELLS or df <= 0:
        return NO_PRIOR
    logs = log(positive)
    beyond = float(logs.var(ddof=1) - zeta(2, df / 2))  # zeta(2, x) is trigamma(x)
    centre = float(logs.mean() - digamma(df / 2) + math.log(df / 2))
    if beyond <= zeta(2, MOST_DF / 2):
        return Prior(math.exp(centre), math.inf)
    if beyond >= zeta(2, LEAST_DF / 2):
        return NO_PRIOR
    half = float(brentq(lambda half: zeta(2, half) - beyond, LEAST_DF / 2, MOST_DF / 2))
    return Prior(math.exp(centre + float(digamma(half)) - math.log(half)), 2 * half)
