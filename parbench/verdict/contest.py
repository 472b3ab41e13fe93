"""Tests of differences between cells: one against another, and the best against all the rest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from parbench.check.significance import detectable_effect
from parbench.figures.statistics import CONFIDENCE
from parbench.verdict.spread import NO_SPREAD, Samples, Spread, spreads_of

ALPHA = 1 - CONFIDENCE
POWER = 0.8
_LEAST_DF = 1.0
"""Where statsmodels' studentized range begins; two noisy rounds can leave a little less."""


@dataclass(frozen=True)
class Difference:
    """How much better one cell is than another on the log scale, with its standard error and degrees of freedom."""

    estimate: float
    error: float
    df: float

    @cached_property
    def p(self) -> float:
        """The probability of so large a difference, in either direction, were there none."""
        if self.error < NO_SPREAD:
            return 0.0 if abs(self.estimate) > NO_SPREAD else 1.0
        from scipy.stats import t

        return float(2 * t.sf(abs(self.estimate) / self.error, self.df))

    @property
    def is_sure(self) -> bool:
        """Whether the difference is more than luck."""
        return self.p < ALPHA

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The confidence interval of the difference."""
        if self.error < NO_SPREAD:
            return self.estimate, self.estimate
        from scipy.stats import t

        low, high = t.interval(confidence, self.df, loc=self.estimate, scale=self.error)
        return float(low), float(high)

    def falls_among(self, count: int) -> bool:
        """Whether the highest and the lowest of `count` equal cells would seldom be as far apart, by luck alone."""
        return abs(self.estimate) > max(self.error * self._critical(count), NO_SPREAD)

    def detectable(self, count: int) -> float:
        """The difference that falls among `count` cells with probability `POWER`."""
        if self.error < NO_SPREAD:
            return 0.0
        from scipy.stats import t

        return self.error * detectable_effect(self.df, float(t.sf(self._critical(count), self.df)), POWER)

    def _critical(self, count: int) -> float:
        """The critical value of t: that of the studentized range of `count` cells, which is of two cells √2 × t."""
        from statsmodels.stats.libqsturng import qsturng

        return float(qsturng(CONFIDENCE, count, max(self.df, _LEAST_DF))) / math.sqrt(2)


class Ties(NamedTuple):
    """The cells that cannot be told apart from the best, and the difference that would have been seen.

    `detectable` is on the log scale; None where no cell ties or no test was possible.
    """

    cells: list[str]
    detectable: float | None


class Contest:
    """The cells of a panel compared by one figure, of which more is better.

    `samples` are its logarithms; `kinds` says which cells may have the same noise. A difference is formed within the
    rounds that both cells have. Where their variances are not pooled, its degrees of freedom are Welch's (1947).
    """

    def __init__(self, samples: Samples, kinds: Mapping[str, str]) -> None:
        self._samples = samples
        self._spreads = spreads_of(samples, kinds)

    def difference(self, one: str, other: str) -> Difference | None:
        """How much better `one` is than `other`; None where they share no round, or nothing tells their spread."""
        first, second = self._samples.get(one, {}), self._samples.get(other, {})
        shared = sorted(first.keys() & second.keys(), key=repr)
        spreads = [self._spreads[cell] for cell in (one, other) if cell in self._spreads]
        if not shared or len(spreads) < 2:
            return None
        estimate = math.fsum(first[number] - second[number] for number in shared) / len(shared)
        variance = sum(spread.variance for spread in spreads)
        return Difference(estimate, math.sqrt(variance / len(shared)), _welch_df(spreads))

    def ties_with(self, best: str, rest: Sequence[str]) -> Ties:
        """The cells of `rest` that cannot be told apart from the best, in their order.

        The same data choose which cell is called the best, so each is compared with it as the lowest of those that
        are left would be with the highest: by the studentized range of so many (Tukey 1949; with unequal variances
        Games and Howell 1976), the least likely first, until one does not fall. Of any number of equal cells, one is
        called slower in at most 5 % of runs; and for the last two cells it is the two-sided t-test.
        """
        differences = self._differences(best, rest)
        left = sorted(differences, key=lambda cell: -differences[cell].p if differences[cell].estimate > 0 else -1.0)
        while left and differences[left[-1]].estimate > 0 and differences[left[-1]].falls_among(len(left) + 1):
            left.pop()
        tied = [cell for cell in rest if cell in left or cell not in differences]
        sizes = [differences[cell].detectable(len(left) + 1) for cell in left]
        return Ties(tied, max(sizes, default=None))

    def apart_from(self, one: str, others: Sequence[str]) -> set[str]:
        """The cells that differ from `one` in either direction, by t-tests.

        Corrected for their number as Holm and Šidák do (Holland and Copenhaver 1987).
        """
        differences = self._differences(one, others)
        if not differences:
            return set()
        from statsmodels.stats.multitest import multipletests

        p_values = [each.p for each in differences.values()]
        fallen, *_ = multipletests(p_values, alpha=ALPHA, method="holm-sidak")
        return {cell for cell, falls in zip(differences, fallen, strict=True) if falls}

    def _differences(self, one: str, others: Sequence[str]) -> dict[str, Difference]:
        """Those that can be tested."""
        differences = {other: self.difference(one, other) for other in others}
        return {other: each for other, each in differences.items() if each is not None}


def _welch_df(spreads: Sequence[Spread]) -> float:
    """The degrees of freedom of the sum of two variances: those of their pool, or Welch's and Satterthwaite's."""
    one, other = spreads
    if one.pool == other.pool:
        return one.df
    total = one.variance + other.variance
    return total**2 / (one.variance**2 / one.df + other.variance**2 / other.df) if total else one.df + other.df
