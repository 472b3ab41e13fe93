"""Whether the steps of a window were alike from its first to its last: in how far a launch measured one speed."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from parbench.records.trial import RankRecord, Trial

MIN_CYCLES = 6
"""Fewer steps, or cycles of unlike steps, cannot show a trend: in 5, the clearest one comes about once in 60 times."""
TOLERANCE = 0.05
"""The change over a window, as a share of one, that is small enough."""
ALPHA = 0.01
"""How often a cell whose steps only vary by chance is called unsteady."""


class Drift(NamedTuple):
    """By how much the last third of a window was slower than its first third, as a share; negative: faster.

    `p_value` is how often steps in random order would show as clear a trend.
    """

    change: float
    p_value: float


def are_steady(trials: Sequence[Trial]) -> bool | None:
    """Whether no launch of a cell drifted, in warm-up or window; None where windows are too short to tell.

    A launch drifted where warm-up gave up before steps had stopped getting faster, or where steps of the window became
    slower or faster by more than 5 % with a trend that is no chance (p < 0.01, divided by the number of launches:
    Bonferroni). So fixed warm-ups are judged as well.
    """
    if any(not job.steady for trial in trials for rank in trial.ranks for job in rank.jobs):
        return False
    drifts = [drift for trial in trials if (drift := window_drift(cycle_means(trial))) is not None]
    if not drifts:
        return None
    return not any(abs(drift.change) > TOLERANCE and drift.p_value * len(drifts) < ALPHA for drift in drifts)


def window_drift(times: Sequence[float]) -> Drift | None:
    """The drift of step times (seconds, in order) by their medians in thirds; None for fewer than 6.

    The trend is tested by the rank correlation of times with their order, so single slow steps hardly matter (Mann
    1945, "Nonparametric tests against trend"; Kendall's tau, `scipy.stats.kendalltau`).
    """
    if len(times) < MIN_CYCLES:
        return None
    third = len(times) // 3
    first, last = statistics.median(times[:third]), statistics.median(times[-third:])
    if first <= 0 or first == last:
        return Drift(0.0, 1.0)
    from scipy.stats import kendalltau

    return Drift(last / first - 1, float(kendalltau(range(len(times)), times).pvalue))


def cycle_means(trial: Trial) -> list[float]:
    """Mean step times (seconds) of whole cycles, in order, on the rank that took longest.

    Strategies whose steps differ by design, such as those that synchronise in every eighth, repeat after a `cycle`.
    """
    ranks = [means for rank in trial.ranks if (means := _cycle_means(rank))]
    return max(ranks, key=sum, default=[])


def _cycle_means(rank: RankRecord) -> list[float]:
    return [
        statistics.fmean(job.step_times_s[start : start + job.cycle])
        for job in rank.jobs
        for start in range(0, len(job.step_times_s) - job.cycle + 1, job.cycle)
    ]
