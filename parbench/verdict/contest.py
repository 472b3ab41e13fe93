"""Tests of differences between cells: one against another, and the best against all the rest."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from parbench.check.significance import detectable_effect
from parbench.figures.statistics import CONFIDENCE
from parbench.verdict.spread import NO_SPREAD, Samples, Spread, spreads_of

ALPHA = 1 - CONFIDENCE
POWER = 0.8


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

    def detectable(self, alpha: float) -> float:
        """The difference that a two-sided test at level `alpha` finds with probability `POWER`."""
        return 0.0 if self.error < NO_SPREAD else self.error * detectable_effect(self.df, alpha / 2, POWER)


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

        Two-sided t-tests of the best against each, with Holm's and Šidák's correction (Holland and Copenhaver 1987).
        They are two-sided because the same data choose the best: of two equal cells, either looks better.
        """
        differences = self._differences(best, rest)
        slower = _surely(differences, lambda each: each.estimate > 0)
        tied = [cell for cell in rest if cell not in slower]
        # The level at which the stepwise procedure stopped.
        level = 1 - (1 - ALPHA) ** (1 / max(1, len(differences) - len(slower)))
        sizes = [differences[cell].detectable(level) for cell in tied if cell in differences]
        return Ties(tied, max(sizes, default=None))

    def apart_from(self, one: str, others: Sequence[str]) -> set[str]:
        """The cells that differ from `one` in either direction, corrected as ties are."""
        return _surely(self._differences(one, others), lambda _: True)

    def _differences(self, one: str, others: Sequence[str]) -> dict[str, Difference]:
        """Those that can be tested."""
        differences = {other: self.difference(one, other) for other in others}
        return {other: each for other, each in differences.items() if each is not None}


def _surely(differences: Mapping[str, Difference], counts: Callable[[Difference], bool]) -> set[str]:
    """The cells whose difference is more than luck, and in the direction that counts; corrected for their number."""
    if not differences:
        return set()
    from statsmodels.stats.multitest import multipletests

    p_values = [each.p if counts(each) else 1.0 for each in differences.values()]
    fallen, *_ = multipletests(p_values, alpha=ALPHA, method="holm-sidak")
    return {cell for cell, falls in zip(differences, fallen, strict=True) if falls}


def _welch_df(spreads: Sequence[Spread]) -> float:
    """The degrees of freedom of the sum of two variances: those of their pool, or Welch's and Satterthwaite's."""
    one, other = spreads
    if one.pool == other.pool:
        return one.df
    total = one.variance + other.variance
    return total**2 / (one.variance**2 / one.df + other.variance**2 / other.df) if total else one.df + other.df
