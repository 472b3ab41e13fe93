"""Speeds and times of a trial."""

import statistics
from collections.abc import Iterator

import numpy

from parbench.records.cell import CellRecord
from parbench.records.trial import JobRecord, RankRecord, Trial


def tokens_per_s(trial: Trial, cell: CellRecord) -> float:
    """Tokens of all models' measured steps ÷ the slowest rank's window in seconds; new tokens where text is generated.

    A rank's window is the sum over the models that it trains one after another; those that are stacked share one. For
    example 1 model × 10 steps × 8 sequences × 64 tokens in 2 s are 2,560 tokens/s.
    """
    steps = {job.job: job.steps for job in _jobs(trial)}
    window_s = max(sum(job.window_s / job.stacked for job in rank.jobs) for rank in trial.ranks)
    return sum(steps.values()) * cell.global_batch * (cell.new_tokens or cell.seq_len) / window_s


def mfu(trial: Trial, cell: CellRecord, peak_flops: float | None) -> float | None:
    """Model FLOPs utilisation (Chowdhery et al. 2022, appendix B), where one GPU's peak, in 1/s, is known."""
    if peak_flops is None or cell.device_kind != "cuda" or cell.flops_per_token is None or cell.phase == "generate":
        return None
    return tokens_per_s(trial, cell) * cell.flops_per_token / (peak_flops * cell.devices)


def compile_s(trial: Trial) -> float | None:
    """The slowest rank's seconds in torch.compile; None where nothing was compiled."""
    return max((sum(job.compile_s / job.stacked for job in rank.jobs) for rank in trial.ranks), default=0.0) or None


def bubble(trial: Trial) -> float | None:
    """The share of the window in which stages did not compute, the mean over ranks; None where it was not recorded."""
    shares = [1 - job.compute_s / job.window_s for job in _jobs(trial) if job.compute_s is not None and job.window_s]
    return statistics.fmean(shares) if shares else None


def makespan_s(trial: Trial) -> float | None:
    """From the first window's start to the last one's end, in seconds since the ranks met: nodes' clocks differ."""
    windows = [
        (job.started_s - (rank.met_at or 0.0), job.stopped_s - (rank.met_at or 0.0))
        for rank in trial.ranks
        for job in rank.jobs
        if job.stopped_s > job.started_s
    ]
    return max(stopped for _, stopped in windows) - min(started for started, _ in windows) if windows else None


def models_per_hour(trial: Trial, cell: CellRecord) -> float | None:
    """Models ÷ makespan."""
    seconds = makespan_s(trial)
    return None if seconds is None else cell.models * 3600 / seconds


def step_time_s(trial: Trial) -> float:
    """The slowest rank's median step, in seconds."""
    return max(statistics.median(_step_times(rank)) for rank in trial.ranks)


def step_time_quantile_s(trial: Trial, share: float) -> float:
    """The slowest rank's quantile of step times, in seconds: share 0 is the fastest step, 0.5 the median."""
    return max(float(numpy.quantile(_step_times(rank), share)) for rank in trial.ranks)


def measured_s(trial: Trial) -> float:
    """Seconds of warm-up and window on the rank where they took longest."""
    return max((sum(job.warmup_s + job.window_s for job in rank.jobs) for rank in trial.ranks), default=0.0)


def job_steps(trial: Trial) -> dict[int, int]:
    """How many steps every model took in all."""
    return {job.job: job.total_steps for job in _jobs(trial)}


def _jobs(trial: Trial) -> Iterator[JobRecord]:
    return (job for rank in trial.ranks for job in rank.jobs)


def _step_times(rank: RankRecord) -> list[float]:
    return [seconds for job in rank.jobs for seconds in job.step_times_s]


def slowest_steps(trial: Trial) -> list[float]:
    """The step times of the rank whose median step is the slowest, in seconds, in order: the ones of `step_time_s`."""
    ranks = [steps for rank in trial.ranks if (steps := _step_times(rank))]
    return max(ranks, key=statistics.median, default=[])
