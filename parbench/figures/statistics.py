"""Summaries over rounds: every interval is scipy's, on the log scale, because speeds and ratios are multiplicative."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class RoundId(NamedTuple):
    """A round of a session: the number of the run among those that are pooled, and the round's number in it."""

    session: int
    number: int


class Summary(NamedTuple):
    """A mean and its confidence interval; the interval is None where one value says nothing about spread."""

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
    return summarise_rounds({RoundId(0, number): value for number, value in enumerate(values)}, confidence)


def summarise_rounds(values: Mapping[RoundId, float], confidence: float = CONFIDENCE) -> Summary:
    """The geometric mean of positive `values`, and the interval of it for all that they are a sample of.

    Of one session that are its rounds: the interval is Student's t of the logarithms, and says nothing of other days.

    Of k sessions it is the sessions: a one-way random effects model, in which the logarithm of a round is the overall
    mean + its session's deviation + its own. Each session's mean counts once, and the interval is Student's t with
    k - 1 degrees of freedom over these means, which is exact where sessions have equally many rounds (Searle, Casella
    and McCulloch 1992, "Variance components", chapter 3), and with equal weights the one of Hartung and Knapp 2001.
    Means of few sessions may agree by luck, so it is never narrower than if sessions did not differ at all, as Jackson,
    Law, Rücker and Schwarzer 2017 discuss ("The Hartung-Knapp modification for random-effects meta-analysis: a useful
    refinement but are there any residual concerns?"). Of two sessions it is wide: 12.7 standard errors each way.

    Raises `ValueError` where there is no value, or one that is not positive.
    """
    if not values or min(values.values()) <= 0:
        raise ValueError(f"a geometric mean needs positive values, not {list(values.values())}")
    mean, low, high = _mean_of_sessions(_logarithms(values), confidence)
    if low is None or high is None:
        return Summary(math.exp(mean), None, None)
    return Summary(math.exp(mean), math.exp(low), math.exp(high))


def mean_over_rounds(values: Mapping[RoundId, float], confidence: float = CONFIDENCE) -> Summary:
    """The arithmetic mean of values of any sign, such as differences of ratios, and its interval.

    The interval is that of `summarise_rounds`, of the values instead of their logarithms. Raises `ValueError` where
    there is no value.
    """
    if not values:
        raise ValueError("there is no mean of no values")
    return _mean_of_sessions(_by_session(values), confidence)


def _mean_of_sessions(sessions: Sequence[Sequence[float]], confidence: float) -> Summary:
    """The mean of the sessions' means, with its interval."""
    means = [math.fsum(values) / len(values) for values in sessions]
    center = math.fsum(means) / len(means)  # of one session, its mean to the last digit
    if len({value for values in sessions for value in values}) == 1:
        is_repeated = sum(map(len, sessions)) > 1
        return Summary(center, *((center, center) if is_repeated else (None, None)))
    observations = means if len(sessions) > 1 else sessions[0]
    low, high = _students_interval(observations, center, confidence)
    if len(sessions) > 1 and (explained := _explained_by_rounds(sessions)):
        reach = _students_quantile(_freedom(sessions), confidence) * math.sqrt(explained / len(means))
        low, high = min(low, center - reach), max(high, center + reach)
    return Summary(center, low, high)


def deviation_between_sessions(values: Mapping[RoundId, float]) -> float:
    """The standard deviation of sessions' true means on the log scale, which is nearly a share; NaN of one session.

    The variance of the observed means less what rounds explain of it, or 0 (the ANOVA estimator of Searle, Casella and
    McCulloch 1992, chapter 3).
    """
    sessions = _logarithms(values)
    if len(sessions) < 2:
        return math.nan
    observed = statistics.variance(math.fsum(logs) / len(logs) for logs in sessions)
    return math.sqrt(max(0.0, observed - _explained_by_rounds(sessions)))


def _students_interval(values: Sequence[float], center: float, confidence: float) -> tuple[float, float]:
    """The interval of the mean of `values`, which is `center`; it has no width where they agree."""
    if len(set(values)) == 1:
        return center, center
    standard_error = statistics.stdev(values) / math.sqrt(len(values))
    reach = _students_quantile(len(values) - 1, confidence) * standard_error
    return center - reach, center + reach


def _students_quantile(df: float, confidence: float) -> float:
    """Half the width of Student's interval, in standard errors."""
    # The function itself: scipy.stats takes a second to import, and a millisecond for each interval.
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + confidence) / 2))


def _logarithms(values: Mapping[RoundId, float]) -> list[list[float]]:
    """The logarithms of each session's rounds."""
    return [[math.log(value) for value in rounds] for rounds in _by_session(values)]


def _by_session(values: Mapping[RoundId, float]) -> list[list[float]]:
    """The values of each session's rounds."""
    sessions: defaultdict[int, list[float]] = defaultdict(list)
    for number, value in values.items():
        sessions[number.session].append(value)
    return list(sessions.values())


def _explained_by_rounds(sessions: Sequence[Sequence[float]]) -> float:
    """The variance that a session's mean has because it is of few rounds; 0 where no session has two rounds."""
    several = [logs for logs in sessions if len(logs) > 1]
    if not several:
        return 0.0
    of_a_round = math.fsum((len(logs) - 1) * statistics.variance(logs) for logs in several) / _freedom(sessions)
    return of_a_round * statistics.fmean(1 / len(logs) for logs in sessions)


def _freedom(sessions: Sequence[Sequence[float]]) -> int:
    """The degrees of freedom of rounds about their sessions' means."""
    return sum(len(logs) - 1 for logs in sessions)
