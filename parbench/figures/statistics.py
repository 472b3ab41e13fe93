"""Summaries over rounds: every interval is scipy's, on the log scale, because speeds and ratios are multiplicative."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Summary(NamedTuple):
    """A geometric mean and its confidence interval; the interval is None where one value says nothing about spread."""

    mean: float
    low: float | None
    high: float | None


def mean_of_round(values: Sequence[float]) -> float:
    """One value for the launches of a cell in one round: the geometric mean or, unless all are positive, the median."""
    if len(values) == 1:
        return values[0]
    return statistics.geometric_mean(values) if min(values) > 0 else statistics.median(values)


def summarise(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary:
    """The geometric mean of positive `values` with Student's t interval of their logarithms.

    Raises `ValueError` where there is no value, or one that is not positive.
    """
    if not values or min(values) <= 0:
        raise ValueError(f"a geometric mean needs positive values, not {list(values)}")
    logs = [math.log(value) for value in values]
    center = math.fsum(logs) / len(logs)
    mean = math.exp(center)
    if len(set(logs)) == 1:
        return Summary(mean, *((mean, mean) if len(logs) > 1 else (None, None)))
    from scipy.stats import sem, t

    low, high = t.interval(confidence, len(logs) - 1, loc=center, scale=sem(logs))
    return Summary(mean, math.exp(low), math.exp(high))
