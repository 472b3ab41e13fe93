"""Losses and perplexities of a trial."""

import math
import statistics
from collections.abc import Sequence

from parbench.figures.speed import _jobs
from parbench.records.trial import Trial


def averaged_perplexity(trial: Trial) -> float | None:
    """exp of the validation loss of the average of all models."""
    return _exp([rank.averaged_validation_loss for rank in trial.ranks])


def validation_perplexity(trial: Trial) -> float | None:
    """exp of the mean validation loss over models; shards are equally large, so theirs are averaged."""
    return _exp([job.validation_loss for job in _jobs(trial)])


def _exp(losses: Sequence[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    try:
        return math.exp(statistics.fmean(known)) if known else None
    except OverflowError:
        return math.inf


def job_losses(trial: Trial) -> dict[int, list[float]]:
    """The losses of every model on its global batch, step by step, in nats per token: the mean over equal shards."""
    shards: dict[int, list[tuple[float, ...]]] = {}
    for job in _jobs(trial):
        if job.losses:
            shards.setdefault(job.job, []).append(job.losses)
    return {job: [statistics.fmean(step) for step in zip(*losses, strict=True)] for job, losses in shards.items()}


def job_validations(trial: Trial) -> dict[int, dict[int, float]]:
    """Every model's validation losses by how many steps it had taken, in nats per token: the mean over shards."""
    shards: dict[int, dict[int, list[float]]] = {}
    for job in _jobs(trial):
        timed = [(job.total_steps, job.validation_loss)] if job.validation_loss is not None else []
        for steps, loss in {**dict(timed), **{each.steps: each.loss for each in job.validations}}.items():
            shards.setdefault(job.job, {}).setdefault(steps, []).append(loss)
    return {
        job: {steps: statistics.fmean(losses) for steps, losses in by_steps.items()} for job, by_steps in shards.items()
    }


def job_shared_losses(trial: Trial) -> dict[int, list[float]]:
    """The losses of the same batch in all ranks of every model, where they were asked for."""
    losses: dict[int, list[float]] = {}
    for job in _jobs(trial):
        if job.shared_loss is not None:
            losses.setdefault(job.job, []).append(job.shared_loss)
    return losses
