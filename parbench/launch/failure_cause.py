"""Why a trial failed, from the records of its ranks and how their processes ended."""

import math
import signal
from collections.abc import Mapping, Sequence
from typing import get_args

from parbench.launch.base import Outcome
from parbench.records.trial import RankRecord, Stage, Status


def verdict(outcome: Outcome, ranks: Sequence[RankRecord]) -> tuple[Status, str | None]:
    """The status of a trial and its reason: of all that went wrong the cause, not the ranks that it took along.

    A signal comes before a rank that went without a word, that before the earliest error on record: the ranks that
    waited for the first two report errors of their own.
    """
    known = {record.rank: record for record in ranks}
    if outcome.reason:
        return "timed_out" if outcome.timed_out else "failed", outcome.reason
    if outcome.timed_out:
        laggard = _laggard(len(outcome.exit_codes), known)
        return "timed_out", f"still running after {outcome.wall_s:.1f} s; {laggard}"
    for rank, code in enumerate(outcome.exit_codes):
        record = known.get(rank)
        # A rank that has told its error may still crash on its way out, and NCCL's watchdog aborts those that wait
        # for one that has: the error is the cause.
        told = record and record.failure
        if code is not None and code < 0 and not (told or (code == -signal.SIGABRT and _any_failure(ranks))):
            return "killed", f"rank {rank} was ended by {_signal_name(-code)}{_stage_of(record)}"
    for rank, code in enumerate(outcome.exit_codes):
        record = known.get(rank)
        if code is not None and (record is None or (record.stage != "done" and record.failure is None)):
            return "failed", f"rank {rank} ended with exit code {code}{_stage_of(record)}, without a word"
    failed = sorted((record for record in ranks if record.failure), key=_when)
    for record in failed:
        assert record.failure is not None  # noqa: S101 - for mypy
        status: Status = "out_of_memory" if record.failure.out_of_memory else "failed"
        peak = _peak(record) if record.failure.out_of_memory else ""
        return status, f"rank {record.rank} failed in {record.stage}: {_first_line(record.failure.error)}{peak}"
    if any(outcome.exit_codes) or None in outcome.exit_codes:
        return "failed", f"the ranks ended with exit codes {', '.join(map(str, outcome.exit_codes))}"
    return "ok", None


def _when(record: RankRecord) -> tuple[bool, float]:
    """Puts failures in order, also those of different nodes, whose clocks agree only on when the ranks had met."""
    at = record.failure.at if record.failure else math.inf
    return record.met_at is not None, at - (record.met_at or 0.0)


def _any_failure(ranks: Sequence[RankRecord]) -> bool:
    return any(record.failure for record in ranks)


def _laggard(processes: int, known: Mapping[int, RankRecord]) -> str:
    """Which rank the others waited for: the one that came least far, of those that had not given up waiting."""
    absent = [rank for rank in range(processes) if rank not in known]
    if absent:
        return f"rank {absent[0]} had not started" if known else "no rank had started"
    stages = get_args(Stage)
    behind = min(
        known.values(),
        key=lambda rank: (rank.failure is not None, rank.stage == "done", len(rank.jobs), stages.index(rank.stage)),
    )
    return f"rank {behind.rank} was in {behind.stage}"


def _peak(record: RankRecord) -> str:
    """How much memory a rank had reached, on its fullest device."""
    known = [device.allocated_peak for device in record.memory.devices] or [record.memory.resident_growth or 0]
    return f" (its peak was {max(known) / 2**20:,.0f} MiB)" if any(known) else ""


def _first_line(text: str) -> str:
    """The first line that says something: torch begins some messages on the line after their type."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:500]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _stage_of(record: RankRecord | None) -> str:
    return f" in {record.stage}" if record else " before it started"
