"""Times of generating text. All are None for a trial that generated nothing.

Shards work at the same time, so the slowest says when all prompts were taken in; lanes do, too, each on one of its
models at a time.
"""

import statistics

from parbench.figures.base import Figure
from parbench.figures.speed import jobs_of
from parbench.records.cell import CellRecord
from parbench.records.trial import GenerationRecord, Trial


def time_to_first_token_s(trial: Trial) -> float | None:
    """Seconds from a prompt to its first new token: the median over steps of the slowest rank."""
    return max((statistics.median(record.first_token_s) for record in _generations(trial)), default=None)


def time_per_output_token_s(trial: Trial, share: float) -> float | None:
    """A quantile, over all ranks and steps, of the seconds from one new token to the next."""
    times = [seconds for record in _generations(trial) for seconds in record.token_s]
    if not times:
        return None
    from numpy import quantile

    return float(quantile(times, share))


def prefill_tokens_per_s(trial: Trial, cell: CellRecord) -> float | None:
    """Tokens of all lanes' prompts ÷ the seconds to the first new token."""
    seconds = time_to_first_token_s(trial)
    if seconds is None or cell.new_tokens is None:
        return None
    return _lanes(trial) * cell.global_batch * (cell.seq_len - cell.new_tokens) / seconds


def decode_tokens_per_s(trial: Trial, cell: CellRecord) -> float | None:
    """New tokens of all lanes, after the first of each sequence, in a second of the slowest rank."""
    means = [statistics.fmean(record.token_s) for record in _generations(trial) if record.token_s]
    return _lanes(trial) * cell.global_batch / max(means) if means else None


def job_sequences(trial: Trial) -> dict[int, list[str]]:
    """The digests of each model's sequences. Ranks of one shard have the same, so a shard's are counted once."""
    shards = {
        (job.job, rank.shard): job.generation.sequences
        for rank in trial.ranks
        for job in rank.jobs
        if job.generation and job.generation.sequences
    }
    by_job: dict[int, list[str]] = {}
    for (job, _), sequences in sorted(shards.items()):
        by_job.setdefault(job, []).extend(sequences)
    return by_job


def closest_choices(trial: Trial) -> dict[str, float]:
    """How close the closest choice of each of a reference's sequences was, in logits, by the sequence's digest."""
    records = [job.generation for rank in trial.ranks for job in rank.jobs if job.generation]
    pairs = (zip(record.sequences, record.closest_choices, strict=False) for record in records)
    return {digest: distance for each in pairs for digest, distance in each}


def _generations(trial: Trial) -> list[GenerationRecord]:
    return [job.generation for job in jobs_of(trial) if job.generation and job.generation.first_token_s]


def _lanes(trial: Trial) -> int:
    return len({rank.lane for rank in trial.ranks})


TIME_TO_FIRST_TOKEN_S = Figure(
    name="time_to_first_token_s",
    title="first token",
    unit="s",
    better="lower",
    meaning="From a prompt to its first new token: the median over steps of the slowest rank.",
    of=lambda launch: time_to_first_token_s(launch.trial),
    gate="relative",
)

TIME_PER_OUTPUT_TOKEN_P50_S = Figure(
    name="time_per_output_token_p50_s",
    title="per token p50",
    unit="s",
    better="lower",
    meaning="From one new token to the next: the median over all ranks and steps.",
    of=lambda launch: time_per_output_token_s(launch.trial, 0.5),
    gate="relative",
)

TIME_PER_OUTPUT_TOKEN_P90_S = Figure(
    name="time_per_output_token_p90_s",
    title="per token p90",
    unit="s",
    better="lower",
    meaning="From one new token to the next: the 90th percentile over all ranks and steps.",
    of=lambda launch: time_per_output_token_s(launch.trial, 0.9),
    shown_in=("table", "charts"),
)

TIME_PER_OUTPUT_TOKEN_P99_S = Figure(
    name="time_per_output_token_p99_s",
    title="per token p99",
    unit="s",
    better="lower",
    meaning="From one new token to the next: the 99th percentile over all ranks and steps.",
    of=lambda launch: time_per_output_token_s(launch.trial, 0.99),
)

PREFILL_TOKENS_PER_S = Figure(
    name="prefill_tokens_per_s",
    title="prefill tokens/s",
    unit="tokens/s",
    better="higher",
    meaning="Tokens of prompts that the whole system takes in, in a second until the first new token.",
    of=lambda launch: prefill_tokens_per_s(launch.trial, launch.cell),
    shown_in=("table", "charts"),
)

DECODE_TOKENS_PER_S = Figure(
    name="decode_tokens_per_s",
    title="decode tokens/s",
    unit="tokens/s",
    better="higher",
    meaning="New tokens of the whole system in a second, after the first of each sequence.",
    of=lambda launch: decode_tokens_per_s(launch.trial, launch.cell),
    gate="relative",
)

FIGURES = (
    TIME_TO_FIRST_TOKEN_S,
    TIME_PER_OUTPUT_TOKEN_P50_S,
    TIME_PER_OUTPUT_TOKEN_P90_S,
    TIME_PER_OUTPUT_TOKEN_P99_S,
    PREFILL_TOKENS_PER_S,
    DECODE_TOKENS_PER_S,
)
