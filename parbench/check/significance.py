"""The statistics: one launch is one observation, on the log scale, because speeds and sizes are multiplicative.

Every test is scipy's and every correction and power statsmodels'. Steps within a launch are never pooled: they share
what the launch was lucky or unlucky in (Kalibera & Jones 2013, "Rigorous Benchmarking in Reasonable Time").
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from parbench.figures.statistics import CONFIDENCE

Method = Literal["between sessions", "within run", "paired"]


Alternative = Literal["two-sided", "less", "greater"]


NO_SPREAD = 1e-9


RESAMPLES = 9999


@dataclass(frozen=True)
class Comparison:
    """A change on the log scale, positive where it is for the worse, and how sure it is.

    `estimate` is the change, `error` its standard error, `noise` the standard deviation of one observation,
    `tested(shift, alternative)` scipy's test of the change against `shift`, `margin` the change that the null
    hypothesis allows, and `counts` how many observations there are, new and old.
    """

    method: Method
    estimate: float
    error: float
    noise: float
    counts: tuple[int, int]
    margin: float
    tested: Callable[[float, Alternative], Any]

    @cached_property
    def df(self) -> float:
        """The test's degrees of freedom, as scipy has them: for Welch's test a fraction."""
        with _constant_samples_allowed():
            return float(self.tested(0.0, "two-sided").df)

    @cached_property
    def p_worse(self) -> float:
        """The probability of so bad a change or a worse one, were it within the margin."""
        return self._p(self.margin, "greater")

    @cached_property
    def p_better(self) -> float:
        """The same for a change for the better."""
        return self._p(-self.margin, "less")

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The confidence interval of the change."""
        if self.noise < NO_SPREAD:
            return self.estimate, self.estimate
        with _constant_samples_allowed():
            bounds = self.tested(0.0, "two-sided").confidence_interval(CONFIDENCE)
        return float(bounds.low), float(bounds.high)

    def detectable(self, alpha: float, power: float) -> float:
        """The smallest change for the worse that is found with probability `power`, on the log scale."""
        if self.noise < NO_SPREAD:
            return self.margin
        return self.margin + detectable_effect(self.df, alpha, power) * self.error

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

    def _p(self, shift: float, alternative: Alternative) -> float:
        if self.noise < NO_SPREAD:  # what never varies needs no test
            beyond = self.estimate - shift if alternative == "greater" else shift - self.estimate
            return 0.0 if beyond > NO_SPREAD else 1.0
        with _constant_samples_allowed():
            return float(self.tested(shift, alternative).pvalue)


def between_sessions(new: Sequence[float], sessions: Sequence[Sequence[float]], margin: float) -> Comparison:
    """A new session's mean against those of many sessions: the t-test whose interval is a prediction interval.

    `scipy.stats.ttest_ind` with a single new observation. The null hypothesis is that the new session is one more of
    the same kind, worse by at most the margin; the spread between sessions holds what a machine does from day to day.
    """
    from numpy import mean, std
    from scipy.stats import ttest_ind

    fresh, old = [float(mean(new))], [float(mean(session)) for session in sessions]
    estimate, noise = fresh[0] - float(mean(old)), float(std(old, ddof=1))

    def tested(shift: float, alternative: Alternative) -> Any:
        return ttest_ind([fresh[0] - shift], old, alternative=alternative)

    error = noise * math.sqrt(1 + 1 / len(old))
    return Comparison("between sessions", estimate, error, noise, (1, len(old)), math.log1p(margin), tested)


def within_run(new: Sequence[float], old: Sequence[float], margin: float) -> Comparison:
    """Rounds against rounds, where the spread between sessions is unknown: Welch's t-test against the margin."""
    from numpy import array, mean, var
    from scipy.stats import ttest_ind

    fresh = array(new)
    estimate, variances = float(mean(new) - mean(old)), (float(var(new, ddof=1)), float(var(old, ddof=1)))

    def tested(shift: float, alternative: Alternative) -> Any:
        return ttest_ind(fresh - shift, old, equal_var=False, alternative=alternative)

    counts = (len(new), len(old))
    error = math.sqrt(variances[0] / counts[0] + variances[1] / counts[1])
    return Comparison("within run", estimate, error, math.sqrt(sum(variances) / 2), counts, math.log1p(margin), tested)


def paired(changes: Sequence[float], margin: float) -> Comparison:
    """Rounds of two arms that took turns: the one-sample t-test of their differences against the margin."""
    from numpy import mean, std
    from scipy.stats import ttest_1samp

    def tested(shift: float, alternative: Alternative) -> Any:
        return ttest_1samp(changes, shift, alternative=alternative)

    count, noise = len(changes), float(std(changes, ddof=1))
    error = noise / math.sqrt(count)
    return Comparison("paired", float(mean(changes)), error, noise, (count, count), math.log1p(margin), tested)


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


@lru_cache(maxsize=1024)
def detectable_effect(df: float, alpha: float, power: float) -> float:
    """The smallest effect, in standard errors, that a t-test with `df` degrees of freedom finds with `power`.

    The power of every t-test is that of the noncentral t distribution with its degrees of freedom, so statsmodels'
    one-sample test of df + 1 observations stands for them all; its effects are in standard deviations.
    """
    return _solve(effect_size=None, nobs=df + 1, alpha=alpha, power=power) * math.sqrt(df + 1)


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
