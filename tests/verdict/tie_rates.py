"""How often a run ties what differs, or calls fastest what is not: `python -m tests.verdict.tie_rates`.

Made-up runs of 12 cells of four strategies. Launches vary by 4.5 %, rounds by 3 % for all cells alike. The first cell
is faster than the second by a known difference and twice as fast as the others. "Before" is the rule that verdicts had:
a t-test of the two cells' own ratios within rounds.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from parbench.figures.statistics import summarise
from parbench.verdict.contest import Contest

NOISE, ROUND_NOISE, CELLS, KINDS = 0.045, 0.03, 12, 4
DIFFERENCES = (0.0, 0.05, 0.15, 0.30)
FIRST, SECOND = "cell 0", "cell 1"


class Rates(NamedTuple):
    """Shares of runs: a tie of the two, the wrong one or either of two equal ones called fastest, truth in interval.

    `seen` is the median difference that would have been seen.
    """

    tie_before: float
    false_before: float
    tie: float
    false: float
    coverage: float
    seen: float


@dataclass(frozen=True)
class Setting:
    """What is drawn: `difference` is how much slower the second cell is, `factor` how much noisier its kind is."""

    rounds: int
    difference: float
    factor: float = 1.0

    @property
    def truth(self) -> float:
        """The difference on the log scale."""
        return -math.log1p(-self.difference)

    def samples(self, rng: np.random.Generator) -> dict[str, dict[int, float]]:
        """The log of tokens/s by cell and round."""
        centers = np.array([0.0, -self.truth, *[-math.log(2)] * (CELLS - 2)])
        noise = np.where(np.arange(CELLS) % KINDS == 1, NOISE * self.factor, NOISE)
        values = centers[:, None] + rng.normal(0, ROUND_NOISE, self.rounds)
        values = values + rng.normal(0, 1, (CELLS, self.rounds)) * noise[:, None]
        return {f"cell {index}": dict(enumerate(map(float, row))) for index, row in enumerate(values)}


def rates(setting: Setting, runs: int, seed: int = 0) -> Rates:
    """The rates over so many made-up runs."""
    rng = np.random.default_rng(seed)
    kinds = {f"cell {index}": f"kind {index % KINDS}" for index in range(CELLS)}
    rows = []
    for _ in range(runs):
        samples = setting.samples(rng)
        best, *rest = sorted(samples, key=lambda cell: -sum(samples[cell].values()))
        other = SECOND if best == FIRST else FIRST
        is_false = best == SECOND or setting.difference == 0
        contest = Contest(samples, kinds)
        ties = contest.ties_with(best, rest)
        difference = contest.difference(FIRST, SECOND)
        assert difference is not None
        low, high = difference.interval()
        tied_before, tied = is_tie_before(samples[best], samples[other]), other in ties.cells
        seen = math.nan if ties.detectable is None else math.expm1(ties.detectable)
        rows.append(
            (tied_before, is_false and not tied_before, tied, is_false and not tied, low <= setting.truth <= high, seen)
        )
    values = np.array(rows, dtype=float)
    seen = values[~np.isnan(values[:, 5]), 5]
    return Rates(*values[:, :5].mean(axis=0), float(np.median(seen)) if len(seen) else math.nan)


def is_tie_before(best: dict[int, float], other: dict[int, float]) -> bool:
    """The rule of before: the interval of the ratio of the two, from their own rounds alone, contains 1."""
    ratio = summarise([math.exp(best[number] - other[number]) for number in best])
    return ratio.low is None or ratio.low <= 1


def lines(runs: int) -> Iterator[str]:
    """The table."""
    yield f"{runs} made-up runs a row: {CELLS} cells, launches vary by {NOISE:.1%}; 'seen': what 8 of 10 runs would see"
    yield "rounds  noisier  slower by | before: tie  false fastest |  now: tie  false fastest  coverage  seen"
    for factor in (1.0, 2.5):
        for rounds in (3, 5):
            for difference in DIFFERENCES:
                row = rates(Setting(rounds, difference, factor), runs)
                yield (
                    f"{rounds:6}  {factor:6.1f}x  {difference:9.0%} | {row.tie_before:11.1%}  {row.false_before:13.1%}"
                    f" | {row.tie:8.1%}  {row.false:13.1%}  {row.coverage:8.1%}"
                    f"  {'–' if math.isnan(row.seen) else f'{row.seen:.0%}':>4}"
                )


if __name__ == "__main__":
    print(*lines(int(sys.argv[1]) if sys.argv[1:] else 2000), sep="\n")
