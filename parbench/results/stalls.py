"""Steps in which a rank stood still: stopped, swapped out, or waiting for one that was.

A stall is an outlier among the steps of its kind, by the modified z-score of Iglewicz and Hoaglin (1993, "How to Detect
and Handle Outliers"): that is built from medians, which an outlier does not move. Noise makes such outliers all the
time, so its excess over the median of its kind must also be worth telling, and be more than each of these:

- twice that median: it is much longer than the others;
- a tenth of the time of all steps: other disturbances are reported from the same share on;
- a quarter of a second: schedulers hold a process up for some tens of milliseconds, and CPU quotas for up to their
  period, 100 ms by default: in a window of a few short steps, that is no stall.

Steps of which one in a `cycle` does more than the others, such as to average parameters, are compared with those at the
same place of theirs.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

SCORE = 3.5
"""The modified z-score from which a step is an outlier, as its authors recommend."""

NORMAL = 0.6745
"""The median absolute deviation of a normal distribution, in standard deviations."""

TIMES, SHARE, FLOOR_S = 2.0, 0.1, 0.25
FEWEST_STEPS = 3
"""The fewest steps of one kind in which one can be an outlier: of two, neither is the usual one."""


class Stall(NamedTuple):
    """A step that took `took_s`, where those of its kind take `usual_s`."""

    took_s: float
    usual_s: float


def longest_stall(times_s: Sequence[float], cycle: int = 1) -> Stall | None:
    """The longest stall in a window of steps that took `times_s`, if there is one."""
    window_s = sum(times_s)
    stalls = [stall for place in range(cycle) for stall in _stalls(times_s[place::cycle], window_s)]
    return max(stalls, default=None)


def _stalls(alike: Sequence[float], window_s: float) -> list[Stall]:
    if len(alike) < FEWEST_STEPS:
        return []
    usual = statistics.median(alike)
    deviation = statistics.median(abs(each - usual) for each in alike)
    least = max(TIMES * usual, SHARE * window_s, FLOOR_S, SCORE * deviation / NORMAL)
    return [Stall(each, usual) for each in alike if each - usual > least]
