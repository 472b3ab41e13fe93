"""How devices are used: time that compiling takes, model FLOPs utilisation, and stages that wait."""

import statistics

from parbench.figures.base import Figure
from parbench.figures.speed import jobs_of, tokens_per_s
from parbench.records.cell import CellRecord
from parbench.records.trial import JobRecord, Trial


def compile_s(trial: Trial) -> float | None:
    """The slowest rank's seconds in torch.compile; None where nothing was compiled."""
    return max((sum(job.compile_s / job.stacked for job in rank.jobs) for rank in trial.ranks), default=0.0) or None


def model_flops_per_token(cell: CellRecord) -> float | None:
    """Model FLOPs per token of a step (Chowdhery et al. 2022, appendix B), as the family counts them.

    None where the family does not count, and where text is generated: there a token costs more the later it comes.
    """
    return None if cell.phase == "generate" else cell.flops_per_token


def found_compiled(trial: Trial) -> bool:
    """Whether all graphs that torch.compile needed came from its caches on disk.

    Records of older versions do not tell, and count as if they had not.
    """
    jobs = [job for rank in trial.ranks for job in rank.jobs]
    return any(job.cache_hits for job in jobs) and not any(job.cache_misses for job in jobs)


def mfu(trial: Trial, cell: CellRecord, peak_flops: float | None) -> float | None:
    """Model FLOPs utilisation (Chowdhery et al. 2022, appendix B), where one device's peak in 1/s is known.

    For example 2,560 tokens/s of 1 MFLOP each, on two devices of 10 GFLOP/s, are 12.8 %.
    """
    work = model_flops_per_token(cell)
    if peak_flops is None or work is None:
        return None
    return tokens_per_s(trial, cell) * work / (peak_flops * cell.devices)


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

MODEL_FLOPS_PER_TOKEN = Figure(
    name="model_flops_per_token",
    title="FLOPs/token",
    unit="FLOP",
    better=None,
    meaning="Model FLOPs per token, counted as in the PaLM paper (Chowdhery et al. 2022, appendix B): two operations "
    "for each weight that a token is multiplied with; attention over all positions, as if it were not causal; a "
    "backward pass twice as many as a forward pass. What is computed again does not count.",
    of=lambda launch: model_flops_per_token(launch.cell),
    shown_in=("table",),
)

MFU = Figure(
    name="mfu",
    title="MFU",
    unit="%",
    better="higher",
    meaning="Model FLOPs utilisation: the operations that the model needs (counted as in the PaLM paper, "
    "appendix B) in a second, over the peak of all devices for dense matrix products in the cell's precision, by their "
    "maker's data sheet. Empty where that is not known.",
    of=lambda launch: mfu(launch.trial, launch.cell, launch.peak_flops),
)

MFU_MEASURED = Figure(
    name="mfu_measured",
    title="MFU (measured)",
    unit="%",
    better="higher",
    meaning="Model FLOPs utilisation over a measured peak: the rate that matrix products in the cell's precision "
    "reached on one device in this run, in the launch that computes the reference, times the devices. Empty where it "
    "was not measured.",
    of=lambda launch: mfu(launch.trial, launch.cell, launch.matmul_flops),
    shown_in=("table", "terminal"),
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

FIGURES = (COMPILE_S, WARM_COMPILE_S, MODEL_FLOPS_PER_TOKEN, MFU, MFU_MEASURED, BUBBLE)
