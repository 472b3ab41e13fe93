"""What one trial says: every derived figure is computed here, from the raw record, and nowhere else."""

import math
import statistics
from collections.abc import Iterator, Sequence

import numpy

from parbench.results.trial import CellRecord, JobRecord, MemoryRecord, RankRecord, Trial


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


def averaged_perplexity(trial: Trial) -> float | None:
    """exp of the validation loss of the average of all models."""
    return _exp([rank.averaged_validation_loss for rank in trial.ranks])


def step_time_s(trial: Trial) -> float:
    """The slowest rank's median step, in seconds."""
    return max(statistics.median(_step_times(rank)) for rank in trial.ranks)


def step_time_quantile_s(trial: Trial, share: float) -> float:
    """The slowest rank's quantile of step times, in seconds: share 0 is the fastest step, 0.5 the median."""
    return max(float(numpy.quantile(_step_times(rank), share)) for rank in trial.ranks)


def collectives(trial: Trial) -> float | None:
    """Calls of process groups in a step, on the rank with the most; None where ranks work alone, or it is unknown."""
    return max((rank.traffic.calls for rank in trial.ranks if rank.traffic), default=None)


def communicated_bytes(trial: Trial) -> float | None:
    """Bytes of the tensors handed to process groups in a step, on the rank with the most; None as for calls."""
    return max((rank.traffic.given_bytes for rank in trial.ranks if rank.traffic), default=None)


def peak_memory_bytes(trial: Trial) -> int | None:
    """The largest rank's peak in bytes; of a rank with several CUDA devices, the fullest device."""
    peaks = [peak for rank in trial.ranks if (peak := _rank_peak(rank.memory)) is not None]
    return max(peaks, default=None)


def validation_perplexity(trial: Trial) -> float | None:
    """exp of the mean validation loss over models; shards are equally large, so theirs are averaged."""
    return _exp([job.validation_loss for job in _jobs(trial)])


def _exp(losses: Sequence[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    try:
        return math.exp(statistics.fmean(known)) if known else None
    except OverflowError:
        return math.inf


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


def measured_s(trial: Trial) -> float:
    """Seconds of warm-up and window on the rank where they took longest."""
    return max((sum(job.warmup_s + job.window_s for job in rank.jobs) for rank in trial.ranks), default=0.0)


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


def job_steps(trial: Trial) -> dict[int, int]:
    """How many steps every model took in all."""
    return {job.job: job.total_steps for job in _jobs(trial)}


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


def _jobs(trial: Trial) -> Iterator[JobRecord]:
    return (job for rank in trial.ranks for job in rank.jobs)


def _step_times(rank: RankRecord) -> list[float]:
    return [seconds for job in rank.jobs for seconds in job.step_times_s]


def _rank_peak(memory: MemoryRecord) -> int | None:
    if memory.devices:
        return max(device.allocated_peak for device in memory.devices)
    return memory.resident_growth


def slowest_steps(trial: Trial) -> list[float]:
    """The step times of the rank whose median step is the slowest, in seconds, in order: the ones of `step_time_s`."""
    ranks = [steps for rank in trial.ranks if (steps := _step_times(rank))]
    return max(ranks, key=statistics.median, default=[])


def memory_by_rank(trial: Trial) -> dict[int, dict[str, int]]:
    """Each rank's peak in bytes, cut into kinds that add up; of a rank with several CUDA devices, the fullest one."""
    return {rank.rank: kinds for rank in trial.ranks if (kinds := _memory_kinds(rank.memory))}


def _memory_kinds(memory: MemoryRecord) -> dict[str, int]:
    if memory.devices:
        fullest = max(memory.devices, key=lambda device: device.allocated_peak)
        return {
            "allocated": fullest.allocated_peak,
            "reserved beyond that": max(0, fullest.reserved_peak - fullest.allocated_peak),
        }
    return {} if memory.resident_growth is None else {"resident growth": memory.resident_growth}
