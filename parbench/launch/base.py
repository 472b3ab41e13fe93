"""The contract of launchers, and how what is left in a trial's folder becomes a trial."""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from parbench.results.files import made, opened, writing
from parbench.results.trial import Assignment, Failure, RankRecord, Stage, Status

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
    """Makes an empty trial folder with its `cell.json`. Raises `ResultsError` where it cannot be written."""
    with writing(folder):
        made(folder)
        for leftover in [folder / "cell.json", *folder.glob("rank*")]:
            leftover.unlink(missing_ok=True)
        with opened(folder / "cell.json", "xb") as file:
            file.write(assignment.model_dump_json(indent=2).encode())


def read_ranks(folder: Path, processes: int) -> tuple[RankRecord, ...]:
    """The records that the ranks left, in rank order; a rank that wrote none is missing, and a bad one has failed."""
    records = []
    for rank in range(processes):
        try:
            records.append(RankRecord.model_validate_json((folder / f"rank{rank}.json").read_bytes()))
        except OSError:
            continue
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            told = f"its record cannot be used: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            failure = Failure(error=told, traceback="", out_of_memory=False, at=time.monotonic())
            records.append(RankRecord(rank=rank, host="", pid=0, failure=failure))
    return tuple(records)


def verdict(outcome: Outcome, ranks: Sequence[RankRecord]) -> tuple[Status, str | None]:
    """The status of a trial and its reason: of all that went wrong the cause, not the ranks that it took along.

    A signal comes before a rank that went without a word, that before the earliest error on record: the ranks that
    waited for the first two report errors of their own.
    """
    known = {record.rank: record for record in ranks}
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
    failures = sorted(((record.failure, record) for record in ranks if record.failure), key=lambda pair: pair[0].at)
    for failure, record in failures:
        status: Status = "out_of_memory" if failure.out_of_memory else "failed"
        peak = _peak(record) if failure.out_of_memory else ""
        return status, f"rank {record.rank} failed in {record.stage}: {_first_line(failure.error)}{peak}"
    if any(outcome.exit_codes) or None in outcome.exit_codes:
        return "failed", f"the ranks ended with exit codes {', '.join(map(str, outcome.exit_codes))}"
    return "ok", None


def _any_failure(ranks: Sequence[RankRecord]) -> bool:
    return any(record.failure for record in ranks)


def log_tail(folder: Path, ranks: int) -> str:
    """The end of every rank's output."""
    parts = []
    for rank in range(ranks):
        path = folder / f"rank{rank}.log"
        text = path.read_text(errors="replace").strip() if path.is_file() else ""
        if text:
            parts.append(f"[rank {rank}]\n{text[-LOG_TAIL_CHARACTERS:]}")
    return "\n".join(parts)


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
