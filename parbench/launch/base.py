"""The contract of launchers, and how what is left in a trial's folder becomes a trial."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from parbench.results.trial import Assignment, Failure, RankRecord, Status

LOG_TAIL_CHARACTERS = 4000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the processes of a trial ended.

    `exit_codes` by rank, negative for a signal (None: the launcher ended that rank itself); `wall_s` seconds from the
    launch to the end of the last one; `timed_out` where the deadline ended it.
    """

    exit_codes: tuple[int | None, ...]
    wall_s: float
    timed_out: bool = False


class Launcher(ABC):
    """Starts the ranks of one trial at a time and ends whatever is left of them."""

    @abstractmethod
    def launch(self, folder: Path, *, processes: int, deadline_s: float) -> Outcome:
        """Runs the worker on `folder/cell.json` in `processes` ranks; returns when all have ended."""

    @abstractmethod
    def close(self) -> None:
        """Ends what serves launches, and any rank that still runs."""


def prepare_folder(folder: Path, assignment: Assignment) -> None:
    """Makes an empty trial folder with its `cell.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in [*folder.glob("rank*.json"), *folder.glob("rank*.log"), *folder.glob("rank*.tmp")]:
        leftover.unlink()
    (folder / "cell.json").write_text(assignment.model_dump_json(indent=2))


def read_ranks(folder: Path, processes: int) -> tuple[RankRecord, ...]:
    """The records that the ranks left, in rank order; a rank that wrote none, or half of one, is missing."""
    records = []
    for rank in range(processes):
        try:
            records.append(RankRecord.model_validate_json((folder / f"rank{rank}.json").read_bytes()))
        except (OSError, ValidationError):
            continue
    return tuple(records)


def verdict(outcome: Outcome, ranks: Sequence[RankRecord]) -> tuple[Status, str | None]:
    """The status of a trial and its reason. Of several failures the earliest is the cause; the rest are its victims."""
    failures = sorted(((record.failure, record) for record in ranks if record.failure), key=lambda pair: pair[0].at)
    signals = [(rank, -code) for rank, code in enumerate(outcome.exit_codes) if code is not None and code < 0]
    if signals and not outcome.timed_out:
        rank, number = signals[0]
        return "killed", f"rank {rank} was ended by {_signal_name(number)}{_stage_of(rank, ranks)}"
    if failures:
        failure, record = failures[0]
        return _failed_status(failure), f"rank {record.rank} failed in {record.stage}: {_first_line(failure.error)}"
    if outcome.timed_out:
        behind = min(ranks, key=lambda record: len(record.jobs), default=None)
        stage = f"; rank {behind.rank} was in {behind.stage}" if behind else "; no rank had started"
        return "timed_out", f"still running after {outcome.wall_s:.1f} s{stage}"
    for rank, code in enumerate(outcome.exit_codes):
        if code != 0:
            return "failed", f"rank {rank} ended with exit code {code}{_stage_of(rank, ranks)}"
    unfinished = [record for record in ranks if record.stage != "done"]
    if unfinished or len(ranks) < len(outcome.exit_codes):
        return "failed", "a rank ended without a complete record"
    return "ok", None


def log_tail(folder: Path, ranks: int) -> str:
    """The end of every rank's output."""
    parts = []
    for rank in range(ranks):
        path = folder / f"rank{rank}.log"
        text = path.read_text(errors="replace").strip() if path.is_file() else ""
        if text:
            parts.append(f"[rank {rank}]\n{text[-LOG_TAIL_CHARACTERS:]}")
    return "\n".join(parts)


def _failed_status(failure: Failure) -> Status:
    return "out_of_memory" if failure.out_of_memory else "failed"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:500] if text.strip() else "no message"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _stage_of(rank: int, ranks: Sequence[RankRecord]) -> str:
    return next((f" in {record.stage}" for record in ranks if record.rank == rank), " before it started")
