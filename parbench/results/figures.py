"""What one trial says: every derived figure is computed here, from the raw record, and nowhere else."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from parbench.results.trial import CellRecord, JobRecord, MemoryRecord, RankRecord, Trial

Unit = Literal["tokens/s", "s", "×", "%", "bytes", "perplexity", "nats"]

PARITY_TOLERANCE = {"fp32": 1e-5}
"""How far a loss may lie from the reference, in nats per token, by precision."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure's name, title, unit, which direction is better, and its meaning in a sentence."""

    name: str
    title: str
    unit: Unit
    better: Literal["higher", "lower"] | None
    meaning: str


FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            name="tokens_per_s",
            title="tokens/s",
            unit="tokens/s",
            better="higher",
            meaning="Tokens that the whole system trains on in a second: models × measured steps × global batch × "
            "sequence length ÷ the slowest rank's window. The geometric mean over rounds, with its 95 % interval.",
        ),
        Figure(
            name="speedup",
            title="speedup",
            unit="×",
            better="higher",
            meaning="tokens/s over that of the reference on one device in the same round; geometric mean over rounds.",
        ),
        Figure(
            name="scaling_efficiency",
            title="efficiency",
            unit="%",
            better="higher",
            meaning="Speedup ÷ devices. Strong scaling keeps the global batch; weak scaling grows it with the devices.",
        ),
        Figure(
            name="step_time_s",
            title="step",
            unit="s",
            better="lower",
            meaning="Median time of an optimizer step on the slowest rank; the median over rounds.",
        ),
        Figure(
            name="peak_memory_bytes",
            title="memory/rank",
            unit="bytes",
            better="lower",
            meaning="The largest rank's peak, the median over rounds. CUDA: the peak that torch allocated on a device. "
            "CPU: the peak growth of resident memory over what was there before the model was built.",
        ),
        Figure(
            name="validation_perplexity",
            title="val ppl",
            unit="perplexity",
            better="lower",
            meaning="exp of the mean loss on the validation split after the window. Windows are equally long, so a "
            "faster strategy has trained for more steps: it is a check of sanity, not a ranking.",
        ),
        Figure(
            name="parity_deviation",
            title="deviation",
            unit="nats",
            better="lower",
            meaning="The largest difference between the first steps' losses and those of the reference on the same "
            "global batch, over all models and rounds.",
        ),
    )
}


def tokens_per_s(trial: Trial, cell: CellRecord) -> float:
    """Tokens of all models' measured steps ÷ the slowest rank's window in seconds.

    A rank's window is the sum over the models that it trains one after another. For example 1 model × 10 steps ×
    8 sequences × 64 tokens in 2 s are 2,560 tokens/s.
    """
    steps = {job.job: job.steps for rank in trial.ranks for job in rank.jobs}
    window_s = max(sum(job.window_s for job in rank.jobs) for rank in trial.ranks)
    return sum(steps.values()) * cell.global_batch * cell.seq_len / window_s


def step_time_s(trial: Trial) -> float:
    """The slowest rank's median step, in seconds."""
    return max(statistics.median(_step_times(rank)) for rank in trial.ranks)


def peak_memory_bytes(trial: Trial) -> int | None:
    """The largest rank's peak in bytes; of a rank with several CUDA devices, the fullest device."""
    peaks = [peak for rank in trial.ranks if (peak := _rank_peak(rank.memory)) is not None]
    return max(peaks, default=None)


def validation_perplexity(trial: Trial) -> float | None:
    """exp of the mean validation loss over models; shards are equally large, so theirs are averaged."""
    losses = [job.validation_loss for job in _jobs(trial) if job.validation_loss is not None]
    try:
        return math.exp(statistics.fmean(losses)) if losses else None
    except OverflowError:
        return math.inf


def measured_s(trial: Trial) -> float:
    """Seconds of warm-up and window on the rank where they took longest."""
    return max((sum(job.warmup_s + job.window_s for job in rank.jobs) for rank in trial.ranks), default=0.0)


def job_losses(trial: Trial) -> dict[int, list[float]]:
    """The first steps' losses of every model on its global batch, in nats per token: the mean over equal shards."""
    shards: dict[int, list[tuple[float, ...]]] = {}
    for job in _jobs(trial):
        if job.losses:
            shards.setdefault(job.job, []).append(job.losses)
    return {job: [statistics.fmean(step) for step in zip(*losses, strict=True)] for job, losses in shards.items()}


def parity_deviation(trial: Trial, reference: Trial) -> float:
    """The largest absolute difference between two trials' losses, in nats per token; infinite if one lacks a loss."""
    found, expected = job_losses(trial), job_losses(reference)
    pairs = [(found.get(job, []), expected.get(job, [])) for job in {job.job for job in _jobs(trial)}]
    if not pairs or any(not losses or len(losses) != len(wanted) for losses, wanted in pairs):
        return math.inf
    return max(abs(a - b) for losses, wanted in pairs for a, b in zip(losses, wanted, strict=True))


def _jobs(trial: Trial) -> Iterator[JobRecord]:
    return (job for rank in trial.ranks for job in rank.jobs)


def _step_times(rank: RankRecord) -> list[float]:
    return [seconds for job in rank.jobs for seconds in job.step_times_s]


def _rank_peak(memory: MemoryRecord) -> int | None:
    if memory.devices:
        return max(device.allocated_peak for device in memory.devices)
    return memory.resident_growth
