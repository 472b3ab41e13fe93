"""Losses and perplexities of a trial."""

import math
import statistics
from collections.abc import Sequence

from parbench.figures.base import Figure
from parbench.figures.speed import jobs_of
from parbench.records.trial import Trial


def validation_perplexity(trial: Trial) -> float | None:
    """exp of the mean validation loss over models; shards are equally large, so theirs are averaged."""
    return perplexity_of_mean([job.validation_loss for job in jobs_of(trial)])


def perplexity_of_mean(losses: Sequence[float | None]) -> float | None:
    """exp of the mean of the losses (nats per token) that there are; infinite beyond what a float holds."""
    values = [loss for loss in losses if loss is not None]
    try:
        return math.exp(statistics.fmean(values)) if values else None
    except OverflowError:
        return math.inf


def job_losses(trial: Trial) -> dict[int, list[float]]:
    """The losses of every model on its global batch, step by step, in nats per token: the mean over equal shards."""
    shards: dict[int, list[tuple[float, ...]]] = {}
    for job in jobs_of(trial):
        if job.losses:
            shards.setdefault(job.job, []).append(job.losses)
    return {job: [statistics.fmean(step) for step in zip(*losses, strict=True)] for job, losses in shards.items()}


def job_validations(trial: Trial) -> dict[int, dict[int, float]]:
    """Every model's validation losses by how many steps it had taken, in nats per token: the mean over shards."""
    shards: dict[int, dict[int, list[float]]] = {}
    for job in jobs_of(trial):
        timed = [(job.total_steps, job.validation_loss)] if job.validation_loss is not None else []
        for steps, loss in {**dict(timed), **{each.steps: each.loss for each in job.validations}}.items():
            shards.setdefault(job.job, {}).setdefault(steps, []).append(loss)
    return {
        job: {steps: statistics.fmean(losses) for steps, losses in by_steps.items()} for job, by_steps in shards.items()
    }


def job_shared_losses(trial: Trial) -> dict[int, list[float]]:
    """The losses of every model on the batch that all its ranks evaluate, where they did (nats per token)."""
    losses: dict[int, list[float]] = {}
    for job in jobs_of(trial):
        if job.shared_loss is not None:
            losses.setdefault(job.job, []).append(job.shared_loss)
    return losses


VALIDATION_PERPLEXITY = Figure(
    name="validation_perplexity",
    title="val ppl",
    unit="perplexity",
    better="lower",
    meaning="exp of the mean loss on the validation split after the window. Windows are equally long, so a "
    "faster strategy has trained for more steps: it is a check of sanity, not a ranking.",
    of=lambda launch: validation_perplexity(launch.trial),
)

FIGURES = (VALIDATION_PERPLEXITY,)
