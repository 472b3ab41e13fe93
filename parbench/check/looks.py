"""A design that looks at its data several times and may stop at each: group-sequential tests by alpha spending.

Up to each look the test may spend as large a share of alpha as there is of the rounds (Lan & DeMets 1983, "Discrete
sequential boundaries for clinical trials"; close to Pocock's boundary, which stops early). The levels of the single
looks follow by the recursive integration of Armitage, McPherson & Rowe 1969, as in Jennison & Turnbull 2000,
"Group Sequential Methods", chapter 19; t-tests are held to the levels of normal ones, as in its chapter 4.4.
"""

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

ALPHAS = tuple(10 ** (exponent / 2) for exponent in range(-24, 0))
FARTHEST = 9.0
"""Standard deviations below which no path need be followed."""
POINTS = 150


@dataclass(frozen=True)
class Looks:
    """After how many rounds there is a look; the last one is the most rounds that are measured."""

    rounds: tuple[int, ...]

    def is_last(self, look: int) -> bool:
        """Whether nothing is measured after the look with this index."""
        return look >= len(self.rounds) - 1

    def levels(self, alpha: float) -> tuple[float, ...]:
        """The p-value at or below which a test of level `alpha` rejects, for each look."""
        return _levels(tuple(number / self.rounds[-1] for number in self.rounds), alpha)

    def repeated_p(self, p: float, look: int) -> float:
        """The least alpha at which the whole design rejects with `p` at the look with this index.

        As it is compared with any level, Holm's correction applies to it as to a p-value (Ye, Li, Liu & Yao 2013, "A
        group sequential Holm procedure").
        """
        from numpy import array, interp, log

        if len(self.rounds) == 1:
            return p
        if p <= 0:
            return 0.0
        levels = log(array([self.levels(alpha)[look] for alpha in ALPHAS]))
        if math.log(p) > levels[-1]:
            return 1.0
        return float(math.exp(interp(math.log(p), levels, log(ALPHAS))))


def looks_between(first: int, last: int) -> Looks:
    """A look after every `first` rounds, and one after the last."""
    return Looks((*range(first, last, first), last))


@lru_cache(maxsize=4096)
def _levels(shares: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """The levels of looks at these shares of all rounds.

    The score of a test is a Brownian motion in the share of rounds. `density` is that of the paths which have crossed
    no boundary yet, at the points `scores`.
    """
    from numpy import array, exp, linspace
    from scipy.optimize import brentq
    from scipy.special import ndtr

    levels, before = [], 0.0
    scores, density = array([0.0]), array([1.0])
    for share in shares:
        to_spend, spread = alpha * (share - before), math.sqrt(share - before)
        farthest = FARTHEST * math.sqrt(share)
        excess = partial(_excess_crossing, to_spend, scores, density, spread)
        bound = float(brentq(excess, -farthest, farthest, xtol=1e-9))
        levels.append(float(ndtr(-bound / math.sqrt(share))))
        grid = linspace(-farthest, bound, POINTS)
        kernel = exp(-(((grid[:, None] - scores) / spread) ** 2) / 2) / (spread * math.sqrt(2 * math.pi))
        scores, density = grid, kernel @ density * float(grid[1] - grid[0])
        density[[0, -1]] /= 2
        before = share
    return tuple(levels)


def _excess_crossing(to_spend: float, scores: "ndarray", density: "ndarray", spread: float, bound: float) -> float:
    """By how much the probability to cross `bound` next exceeds what there is to spend."""
    from scipy.special import ndtr

    return float(density @ ndtr((scores - bound) / spread)) - to_spend
