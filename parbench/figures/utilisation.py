"""How devices are used: time that compiling takes, model FLOPs utilisation, and stages that wait."""

import statistics

from parbench.figures.base import Figure
from parbench.figures.speed import jobs_of, tokens_per_s
from parbench.records.cell import CellRecord
from parbench.records.trial import JobRecord, Trial


def compile_s(trial: Trial) -> float | None:
    """The slowest rank's seconds in torch.compile; None where nothing was compiled."""
    return max((sum(job.compile_s / job.stacked for job in rank.jobs) for rank in trial.ranks), default=0.0) or None


def found_compiled(trial: Trial) -> bool:
    """Whether all graphs that torch.compile needed came from its caches on disk.

    Records of older versions do not tell, and count as if they had not.
    """
    jobs = [job for rank in trial.ranks for job in rank.jobs]
    return any(job.cache_hits for job in jobs) and not any(job.cache_misses for job in jobs)


def mfu(trial: Trial, cell: CellRecord, peak_flops: float | None) -> float | None:
    """Model FLOPs utilisation (Chowdhery et al. 2022, appendix B), where one GPU's peak in 1/s is known."""
    if peak_flops is None or cell.device_kind != "cuda" or cell.flops_per_token is None or cell.phase == "generate":
        return None
    return tokens_per_s(trial, cell) * cell.flops_per_token / (peak_flops * cell.devices)


def bubble(trial: Trial) -> float | None:
    """The share of the window in which ranks waited for other stages, the mean over ranks; None where unknown.

    Records of older versions hold the time of forward and backward passes instead: all the rest counts as waiting
    there, also the loss, the optimizer and the dealing of batches.
    """
    shares = [
        waited / job.window_s for job in jobs_of(trial) if job.window_s and (waited := _waiting_s(job)) is not None
    ]
    return statistics.fmean(shares) if shares else None


def _waiting_s(job: JobRecord) -> float | None:
    if job.waiting_s is None and job.compute_s is not None:
        return job.window_s - job.compute_s
    return job.waiting_s


COMPILE_S = Figure(
    name="compile_s",
    title="compile",
    unit="s",
    better="lower",
    meaning="What torch.compile took before the window, on the slowest rank, in launches that compiled at least one "
    "graph; the median over their rounds. Runs of older versions do not tell which launches did, so all count here.",
    of=lambda launch: None if found_compiled(launch.trial) else compile_s(launch.trial),
)

WARM_COMPILE_S = Figure(
    name="warm_compile_s",
    title="warm compile",
    unit="s",
    better="lower",
    meaning="What torch.compile took before the window, on the slowest rank, in launches that found every graph in the "
    "caches that torch keeps on disk (measure.compile_cache: kept); the median over their rounds.",
    of=lambda launch: compile_s(launch.trial) if found_compiled(launch.trial) else None,
)

MFU = Figure(
    name="mfu",
    title="MFU",
    unit="%",
    better="higher",
    meaning="Model FLOPs utilisation: the operations that the model needs (counted as in the PaLM paper, "
    "appendix B) in a second, over the peak of all devices for dense matrix products in the cell's precision. Empty "
    "where that is not known.",
    of=lambda launch: mfu(launch.trial, launch.cell, launch.peak_flops),
)

BUBBLE = Figure(
    name="bubble",
    title="bubble",
    unit="%",
    better="lower",
    meaning="The share of the window in which a pipeline's ranks waited for other stages and their messages, the mean "
    "over ranks. In runs of older versions the loss, the optimizer and the dealing of batches count as waiting, too.",
    of=lambda launch: bubble(launch.trial),
    ideal="ideal_bubble",
    ideal_meaning="what the schedule leaves idle even if all stages cost the same",
)

FIGURES = (COMPILE_S, WARM_COMPILE_S, MFU, BUBBLE)
