"""What matters of a cell that trains several models: when the last one is done, and what their average is worth."""

from parbench.figures.base import Figure
from parbench.figures.losses import perplexity_of_mean
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial


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


def averaged_perplexity(trial: Trial) -> float | None:
    """exp of the validation loss (nats per token) of the average of all models."""
    return perplexity_of_mean([rank.averaged_validation_loss for rank in trial.ranks])


MAKESPAN_S = Figure(
    name="makespan_s",
    title="makespan",
    unit="s",
    better="lower",
    meaning="From the start of the first model's window to the end of the last one's, and all between.",
    of=lambda launch: makespan_s(launch.trial) if launch.cell.models > 1 else None,
)

MODELS_PER_HOUR = Figure(
    name="models_per_hour",
    title="models/h",
    unit="models/h",
    better="higher",
    meaning="Models ÷ makespan: models of as many steps as were measured.",
    of=lambda launch: models_per_hour(launch.trial, launch.cell) if launch.cell.models > 1 else None,
)

AVERAGED_PERPLEXITY = Figure(
    name="averaged_perplexity",
    title="averaged ppl",
    unit="perplexity",
    better="lower",
    meaning="Validation perplexity of the average of all models' parameters, where a pool makes one.",
    of=lambda launch: averaged_perplexity(launch.trial),
)

FIGURES = (MAKESPAN_S, MODELS_PER_HOUR, AVERAGED_PERPLEXITY)
