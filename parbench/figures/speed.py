"""Speeds and times of a trial."""

import statistics
from collections.abc import Iterator

from parbench.figures.base import Figure, Launch
from parbench.figures.statistics import mean_of_round
from parbench.records.cell import CellRecord
from parbench.records.trial import JobRecord, RankRecord, Trial


def tokens_per_s(trial: Trial, cell: CellRecord) -> float:
    """Tokens of all models' measured steps ÷ the slowest rank's window in seconds; new tokens where text is generated.

    For example 1 model × 10 steps × 8 sequences × 64 tokens in 2 s are 2,560 tokens/s.
    """
    return tokens(trial, cell) / max(map(window_s, trial.ranks))


def tokens(trial: Trial, cell: CellRecord) -> int:
    """Tokens of all models' measured steps; new tokens where text is generated."""
    steps = {job.job: job.steps for job in jobs_of(trial)}
    return sum(steps.values()) * cell.global_batch * (cell.new_tokens or cell.seq_len)


def window_s(rank: RankRecord) -> float:
    """The sum of the windows of the models that a rank trains one after another; those that are stacked share one."""
    return sum(job.window_s / job.stacked for job in rank.jobs)


def mean_step_s(trial: Trial) -> float | None:
    """The slowest rank's window ÷ the steps in it, in seconds; None where nobody took a step.

    Models that are stacked share a window and its steps. For example 10 steps in 2 s are 0.2 s a step, also where one
    of them takes 1.1 s and the others 0.1 s.
    """
    means = [
        window_s(rank) / steps for rank in trial.ranks if (steps := sum(job.steps / job.stacked for job in rank.jobs))
    ]
    return max(means, default=None)


def step_time_s(trial: Trial) -> float:
    """The slowest rank's median step, in seconds."""
    return max(statistics.median(_step_times(rank)) for rank in trial.ranks)


def step_time_quantile_s(trial: Trial, share: float) -> float:
    """The slowest rank's quantile of step times, in seconds: share 0 is the fastest step, 0.5 the median."""
    from numpy import quantile

    return max(float(quantile(_step_times(rank), share)) for rank in trial.ranks)


def measured_s(trial: Trial) -> float:
    """Seconds of warm-up and window on the rank where they took longest."""
    return max((sum(job.warmup_s + job.window_s for job in rank.jobs) for rank in trial.ranks), default=0.0)


def job_steps(trial: Trial) -> dict[int, int]:
    """How many steps every model took in all."""
    return {job.job: job.total_steps for job in jobs_of(trial)}


def jobs_of(trial: Trial) -> Iterator[JobRecord]:
    """Every model on every rank that trains it."""
    return (job for rank in trial.ranks for job in rank.jobs)


def _step_times(rank: RankRecord) -> list[float]:
    return [seconds for job in rank.jobs for seconds in job.step_times_s]


def slowest_steps(trial: Trial) -> list[float]:
    """The step times of the rank whose median step is the slowest, in seconds, in order: the ones of `step_time_s`."""
    ranks = [steps for rank in trial.ranks if (steps := _step_times(rank))]
    return max(ranks, key=statistics.median, default=[])


def speedup(launch: Launch) -> float | None:
    """tokens/s ÷ the geometric mean of the base's launches in the same round; None where there is no base.

    For example 6,000 tokens/s, where the base was launched at 2,000 and at 4,500 tokens/s, are 2×.
    """
    if not launch.bases:
        return None
    base = mean_of_round([tokens_per_s(each.trial, each.cell) for each in launch.bases])
    return tokens_per_s(launch.trial, launch.cell) / base


def scaling_efficiency(launch: Launch) -> float | None:
    """Speedup ÷ devices; None where there is no base."""
    ratio = speedup(launch)
    return None if ratio is None else ratio / launch.cell.devices


def relative_step_time(launch: Launch) -> float | None:
    """The fastest step ÷ the geometric mean of those of the base's launches in the same round; None without a base."""
    if not launch.bases:
        return None
    base = mean_of_round([step_time_quantile_s(each.trial, 0) for each in launch.bases])
    return step_time_quantile_s(launch.trial, 0) / base


TOKENS_PER_S = Figure(
    name="tokens_per_s",
    title="tokens/s",
    unit="tokens/s",
    better="higher",
    meaning="Tokens that the whole system trains on (or scores, or generates) in a second: models × measured "
    "steps × global batch × sequence length (or new tokens) ÷ the slowest rank's window. The geometric mean "
    "over rounds, with its 95 % interval, which covers the sessions that were measured: of one, that session alone.",
    of=lambda launch: tokens_per_s(launch.trial, launch.cell),
    over_rounds="geometric mean",
    interval=True,
    shown_in=("table", "terminal always"),
    gate="relative",
)

SPEEDUP = Figure(
    name="speedup",
    title="speedup",
    unit="×",
    better="higher",
    meaning="tokens/s over that of the reference on one device in the same round, of whose launches the geometric mean "
    "is taken; geometric mean over rounds.",
    of=speedup,
    over_rounds="geometric mean",
    interval=True,
    shown_in=("table", "terminal always"),
)

SCALING_EFFICIENCY = Figure(
    name="scaling_efficiency",
    title="efficiency",
    unit="%",
    better="higher",
    meaning="Speedup ÷ devices. Strong scaling keeps the global batch; weak scaling grows it with the devices.",
    of=scaling_efficiency,
    over_rounds="geometric mean",
    shown_in=("table", "terminal always"),
    gate="relative",
    gated_on=lambda cell: cell.devices > 1,
    portable=True,
)

MEAN_STEP_S = Figure(
    name="mean_step_s",
    title="step",
    unit="s",
    better="lower",
    meaning="The mean time of a step: the slowest rank's window ÷ the steps in it; the median over rounds.",
    of=lambda launch: mean_step_s(launch.trial),
    shown_in=("table", "terminal always"),
)

STEP_TIME_S = Figure(
    name="step_time_s",
    title="median step",
    unit="s",
    better="lower",
    meaning="The median time of a step on the slowest rank; the median over rounds. Where only some steps "
    "communicate, it may be far from the mean.",
    of=lambda launch: step_time_s(launch.trial),
    shown_in=("table",),
    gate="relative",
)

STEP_TIME_MIN_S = Figure(
    name="step_time_min_s",
    title="fastest step",
    unit="s",
    better="lower",
    meaning="The fastest optimizer step of the rank whose fastest step is the slowest.",
    of=lambda launch: step_time_quantile_s(launch.trial, 0),
    shown_in=(),
    gate="relative",
)

STEP_TIME_P10_S = Figure(
    name="step_time_p10_s",
    title="10 % of steps",
    unit="s",
    better="lower",
    meaning="The time that a tenth of the steps stay below, on the rank where that is the longest.",
    of=lambda launch: step_time_quantile_s(launch.trial, 0.1),
    shown_in=(),
    gate="relative",
)

RELATIVE_STEP_TIME = Figure(
    name="relative_step_time",
    title="step ÷ reference's",
    unit="×",
    better="lower",
    meaning="The fastest step over that of the reference on one device in the same round.",
    of=relative_step_time,
    over_rounds="geometric mean",
    shown_in=(),
    gate="relative",
    gated_on=lambda cell: not (cell.is_reference and cell.devices == 1),
    portable=True,
)

FIGURES = (
    TOKENS_PER_S,
    SPEEDUP,
    SCALING_EFFICIENCY,
    MEAN_STEP_S,
    STEP_TIME_S,
    STEP_TIME_MIN_S,
    STEP_TIME_P10_S,
    RELATIVE_STEP_TIME,
)
