"""Why a trial failed, from the records of its ranks and the way their processes ended."""

import math
import signal
from collections.abc import Mapping, Sequence
from typing import get_args

from parbench.launch.base import Outcome
from parbench.records.trial import Milestone, RankRecord, Status


def find_cause(outcome: Outcome, ranks: Sequence[RankRecord]) -> tuple[Status, str | None]:
    """The status of a trial, and its reason unless it is `ok`.

    One failing rank makes the others fail as well, so the reason names the first cause. In this order: what the
    launcher saw, the deadline, a rank ended by a signal, a rank that ended without an error on record, the earliest
    error on record.
    """
    if outcome.reason:
        return "timed_out" if outcome.timed_out else "failed", outcome.reason
    records = {record.rank: record for record in ranks}
    if outcome.timed_out:
        slowest = _find_slowest(len(outcome.exit_codes), records)
        return "timed_out", f"still running after {outcome.wall_s:.1f} s; {slowest}"
    failures = sorted((record for record in ranks if record.failure), key=_failure_time)
    for rank, code in enumerate(outcome.exit_codes):
        record = records.get(rank)
        # A rank may crash after it recorded its error, and NCCL's watchdog aborts ranks that wait for a failed one:
        # then the error is the cause, not the signal.
        explained = (record and record.failure) or (code == -signal.SIGABRT and failures)
        if code is not None and code < 0 and not explained:
            return "killed", f"rank {rank} was ended by {_signal_name(-code)}{_where(record)}"
    for rank, code in enumerate(outcome.exit_codes):
        record = records.get(rank)
        if code is not None and (record is None or (record.stage != "done" and record.failure is None)):
            return "failed", f"rank {rank} ended with exit code {code}{_where(record)}, without an error message"
    for record in failures:
        assert record.failure is not None  # noqa: S101 - for mypy
        status: Status = "out_of_memory" if record.failure.out_of_memory else "failed"
        peak = _peak(record) if record.failure.out_of_memory else ""
        return status, f"rank {record.rank} failed in {record.stage}: {_first_line(record.failure.error)}{peak}"
    if any(outcome.exit_codes) or None in outcome.exit_codes:
        return "failed", f"the ranks ended with exit codes {', '.join(map(str, outcome.exit_codes))}"
    return "ok", None


def _failure_time(record: RankRecord) -> tuple[bool, float]:
    """A key that sorts failures by time. Clocks of nodes differ, so it counts from the moment when the ranks met."""
    at = record.failure.at if record.failure else math.inf
    return record.met_at is not None, at - (record.met_at or 0.0)


def _find_slowest(processes: int, records: Mapping[int, RankRecord]) -> str:
    """The rank that made the least progress, of those without an error: the others waited for it."""
    absent = [rank for rank in range(processes) if rank not in records]
    if absent:
        return f"rank {absent[0]} had not started" if records else "no rank had started"
    stages = get_args(Milestone)
    slowest = min(
        records.values(),
        key=lambda rank: (rank.failure is not None, rank.stage == "done", len(rank.jobs), stages.index(rank.stage)),
    )
    return f"rank {slowest.rank} was in {slowest.stage}"


def _peak(record: RankRecord) -> str:
    """The peak memory of a rank, on its fullest device."""
    peaks = [device.allocated_peak for device in record.memory.devices] or [record.memory.resident_growth or 0]
    return f" (its peak was {max(peaks) / 2**20:,.0f} MiB)" if any(peaks) else ""


def _first_line(text: str) -> str:
    """The first line with content: torch begins some messages on the line after the error's type."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:500]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _where(record: RankRecord | None) -> str:
    return f" in {record.stage}" if record else " before it started"
