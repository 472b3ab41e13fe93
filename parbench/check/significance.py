"""The statistics: one launch is one observation, on the log scale, because speeds and sizes are multiplicative.

Every test is a t-test by scipy's distributions, and every correction and power statsmodels'. Steps within a launch are
never pooled: they share what the launch was lucky or unlucky in (Kalibera & Jones 2013, "Rigorous Benchmarking in
Reasonable Time").
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from parbench.check.looks import Looks
from parbench.check.moderation import NO_PRIOR, Prior
from parbench.figures.statistics import CONFIDENCE

Method = Literal["between sessions", "within run", "paired"]

NO_SPREAD = 1e-9

RESAMPLES = 9999


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A change on the log scale, positive where it is for the worse, and how sure it is.

    `estimate` is the change, `error` its standard error, `noise` the standard deviation of one observation, `df` the
    degrees of freedom of the t-test, `margin` the change that the null hypothesis allows, and `counts` how many
    observations there are, new and old. With `looks` it belongs to the look with index `look` of a design that may
    stop early, and `earlier` is the same comparison at the look before.
    """

    method: Method
    estimate: float
    error: float
    noise: float
    df: float
    margin: float
    counts: tuple[int, int]
    looks: Looks | None = None
    look: int = 0
    earlier: "Comparison | None" = None

    @cached_property
    def p_worse(self) -> float:
        """The probability of so bad a change or a worse one at any look so far, were it within the margin."""
        return min(self._p(self.estimate - self.margin), self.earlier.p_worse if self.earlier else 1.0)

    @cached_property
    def p_better(self) -> float:
        """The same for a change for the better."""
        return min(self._p(-self.margin - self.estimate), self.earlier.p_better if self.earlier else 1.0)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The confidence interval of the change."""
        if self.noise < NO_SPREAD:
            return self.estimate, self.estimate
        from scipy.stats import t

        low, high = t.interval(CONFIDENCE, self.df, self.estimate, self.error)
        return float(low), float(high)

    def detectable(self, alpha: float, power: float) -> float:
        """The smallest change for the worse that is found with probability `power`, on the log scale."""
        if self.noise < NO_SPREAD:
            return self.margin
        level = self.looks.levels(alpha)[self.look] if self.looks else alpha
        return self.margin + detectable_effect(self.df, level, power) * self.error

    def rounds_needed(self, effect: float, alpha: float, power: float) -> tuple[int, int] | None:
        """How many rounds, new and old, would find `effect`; None where rounds cannot tell, as between sessions.

        Both counts grow by the same factor, and the degrees of freedom with them.
        """
        beyond = effect - self.margin
        if self.method == "between sessions" or beyond <= 0 or self.noise < NO_SPREAD:
            return None
        size = beyond / (self.error * math.sqrt(self.df + 1))
        needed = _solve(effect_size=size, nobs=None, alpha=alpha, power=power)
        if not math.isfinite(needed):
            return None
        new, old = (math.ceil(count * needed / (self.df + 1)) for count in self.counts)
        return new, old

    def may_still_fall(self, alpha: float) -> bool:
        """Whether the last look would find it worse, should it go on as it was so far."""
        if self.looks is None or self.looks.is_last(self.look) or self.noise < NO_SPREAD:
            return False
        more = self.looks.rounds[-1] / self.looks.rounds[self.look]
        return (
            _sf((self.estimate - self.margin) / self.error * math.sqrt(more), self.df * more)
            <= (self.looks.levels(alpha)[-1])
        )

    def _p(self, beyond: float) -> float:
        """The probability of an estimate so far beyond a bound that the true change does not exceed."""
        if self.noise < NO_SPREAD:  # what never varies needs no test
            return 0.0 if beyond > NO_SPREAD else 1.0
        p = _sf(beyond / self.error, self.df)
        return self.looks.repeated_p(p, self.look) if self.looks else p


def between_sessions(new: Sequence[float], sessions: Sequence[Sequence[float]], margin: float) -> Comparison:
    """A new session's mean against those of many sessions: the t-test whose interval is a prediction interval.

    `scipy.stats.ttest_ind` with a single new observation. The null hypothesis is that the new session is one more of
    the same kind, worse by at most the margin; the spread between sessions holds what a machine does from day to day.
    """
    from numpy import mean, std

    old = [float(mean(session)) for session in sessions]
    noise = float(std(old, ddof=1))
    return Comparison(
        method="between sessions",
        estimate=float(mean(new)) - float(mean(old)),
        error=noise * math.sqrt(1 + 1 / len(old)),
        noise=noise,
        df=len(old) - 1,
        margin=math.log1p(margin),
        counts=(1, len(old)),
    )


def within_run(new: Sequence[float], old: Sequence[float], margin: float) -> Comparison:
    """Rounds against rounds, where the spread between sessions is unknown: Welch's t-test against the margin."""
    from numpy import mean, var
    from scipy.stats import ttest_ind

    counts, variances = (len(new), len(old)), (float(var(new, ddof=1)), float(var(old, ddof=1)))
    with _constant_samples_allowed():
        df = float(ttest_ind(new, old, equal_var=False).df)
    return Comparison(
        method="within run",
        estimate=float(mean(new) - mean(old)),
        error=math.sqrt(variances[0] / counts[0] + variances[1] / counts[1]),
        noise=math.sqrt(sum(variances) / 2),
        df=df,
        margin=math.log1p(margin),
        counts=counts,
    )


def paired(changes: Sequence[float], margin: float, prior: Prior = NO_PRIOR) -> Comparison:
    """Rounds of two arms that took turns: the one-sample t-test of their differences against the margin.

    The variance is moderated by what is known of it from other cells.
    """
    from numpy import mean, var

    count, variance = len(changes), float(var(changes, ddof=1))
    if math.sqrt(variance) >= NO_SPREAD:
        variance, df = prior.moderate(variance, count - 1)
    else:
        df = count - 1
    noise = math.sqrt(variance)
    return Comparison(
        method="paired",
        estimate=float(mean(changes)),
        error=noise / math.sqrt(count),
        noise=noise,
        df=df,
        margin=math.log1p(margin),
        counts=(count, count),
    )


def permutation_p(changes: Sequence[float], margin: float) -> float:
    """The paired test without the assumption of normality: scipy's test of random signs, beside the t-test."""
    from numpy import array, mean
    from scipy.stats import permutation_test

    sample = array(changes) - math.log1p(margin)
    result = permutation_test(
        (sample,), mean, permutation_type="samples", alternative="greater", n_resamples=RESAMPLES, rng=0
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float], alpha: float) -> tuple[list[bool], list[float]]:
    """Which hypotheses fall, and their corrected p-values, with at most `alpha` false ones among all (Holm 1979)."""
    if not p_values:
        return [], []
    from statsmodels.stats.multitest import multipletests

    rejected, corrected, *_ = multipletests(p_values, alpha=alpha, method="holm")
    return [bool(each) for each in rejected], [float(each) for each in corrected]


def _sf(statistic: float, df: float) -> float:
    """The probability of so large a t statistic or a larger one."""
    from scipy.special import stdtr

    return float(stdtr(df, -statistic))


def detectable_effect(df: float, alpha: float, power: float) -> float:
    """The smallest effect, in standard errors, that a one-sided t-test with `df` degrees of freedom finds with `power`.

    It is the noncentrality at which the noncentral t distribution exceeds the critical value with that probability.
    """
    from scipy.special import nctdtrinc, stdtrit

    return float(nctdtrinc(df, 1 - power, -stdtrit(df, alpha)))


def _solve(**design: float | None) -> float:
    """What is None in the design of a one-sided t-test; infinite where statsmodels finds nothing."""
    from statsmodels.stats.power import TTestPower

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = TTestPower().solve_power(alternative="larger", **design)
    return float(solution) if isinstance(solution, float) and solution > 0 else math.inf


@contextmanager
def _constant_samples_allowed() -> Iterator[None]:
    """One arm may never vary, such as memory: scipy's warning about it is no news."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Precision loss occurred", category=RuntimeWarning)
        yield
