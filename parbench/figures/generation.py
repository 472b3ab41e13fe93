"""Figures of generating text."""

import statistics

import numpy

from parbench.figures.speed import _jobs
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial


def generation_figures(trial: Trial, cell: CellRecord) -> dict[str, float]:
    """The times of generation by figure; empty for a trial that generated nothing.

    Shards work at the same time, so the slowest says when all prompts were taken in; lanes do, too, each on one of its
    models at a time.
    """
    records = [job.generation for job in _jobs(trial) if job.generation and job.generation.first_token_s]
    if not records or cell.new_tokens is None:
        return {}
    at_once = len({rank.lane for rank in trial.ranks})
    first = max(statistics.median(record.first_token_s) for record in records)
    found = {
        "time_to_first_token_s": first,
        "prefill_tokens_per_s": at_once * cell.global_batch * (cell.seq_len - cell.new_tokens) / first,
    }
    times = [seconds for record in records for seconds in record.token_s]
    if times:
        p50, p90, p99 = (float(value) for value in numpy.quantile(times, (0.5, 0.9, 0.99)))
        slowest = max(statistics.fmean(record.token_s) for record in records)
        found |= {"time_per_output_token_p50_s": p50, "time_per_output_token_p90_s": p90}
        found |= {"time_per_output_token_p99_s": p99, "decode_tokens_per_s": at_once * cell.global_batch / slowest}
    return found


def job_sequences(trial: Trial) -> dict[int, list[str]]:
    """The digests of each model's sequences. Ranks of one shard have the same, so a shard's are counted once."""
    shards = {
        (job.job, rank.shard): job.generation.sequences
        for rank in trial.ranks
        for job in rank.jobs
        if job.generation and job.generation.sequences
    }
    found: dict[int, list[str]] = {}
    for (job, _), sequences in sorted(shards.items()):
        found.setdefault(job, []).extend(sequences)
    return found
