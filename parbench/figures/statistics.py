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
    # Student's quantile itself: scipy.stats takes a second to import, and a millisecond for each interval.
    from scipy.special import stdtrit

    standard_error = statistics.stdev(logs) / math.sqrt(len(logs))
    half_width = float(stdtrit(len(logs) - 1, (1 + confidence) / 2)) * standard_error
    return Summary(mean, math.exp(center - half_width), math.exp(center + half_width))
