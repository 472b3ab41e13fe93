"""The folder of a trial: its assignment, and the record and log of each rank."""

import os
import shutil
import time
from pathlib import Path

from pydantic import ValidationError

from parbench.records.assignment import Assignment
from parbench.records.trial import Failure, RankRecord
from parbench.system.files import made, opened, write_all, writing

LOG_TAIL_CHARACTERS = 8000


def asks_for_mps(folder: Path) -> bool:
    """Whether the ranks of a trial are to go through MPS. A folder without a good assignment is theirs to report."""
    try:
        return Assignment.model_validate_json((folder / "cell.json").read_bytes()).mps
    except (OSError, ValidationError):
        return False


def prepare_folder(folder: Path, assignment: Assignment) -> None:
    """Makes a trial folder that holds nothing but `cell.json`. Raises `ResultsError` if it cannot be written."""
    with writing(folder):
        made(folder)
        remove_caches(folder)
        for leftover in [folder / "cell.json", *folder.glob("rank*")]:
            leftover.unlink(missing_ok=True)
        write_new(folder / "cell.json", assignment.model_dump_json(indent=2).encode())


def remove_caches(folder: Path) -> None:
    """Removes the folders in which the ranks of a trial kept what they compiled: no later trial may find it."""
    for path in folder.glob("rank*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def write_new(path: Path, content: bytes) -> None:
    """Writes a new file, completely. Raises `OSError`, also if the file exists."""
    with opened(path, "xb") as file:
        write_all(file, content)


def read_ranks(folder: Path, processes: int) -> tuple[RankRecord, ...]:
    """The records of the ranks, in rank order.

    A rank without a record is left out; a record that cannot be parsed becomes a failure of its rank.
    """
    records = []
    for rank in range(processes):
        try:
            records.append(RankRecord.model_validate_json((folder / f"rank{rank}.json").read_bytes()))
        except OSError:
            continue
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            message = f"its record cannot be used: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            failure = Failure(error=message, traceback="", out_of_memory=False, at=time.monotonic())
            records.append(RankRecord(rank=rank, host="", pid=0, failure=failure))
    return tuple(records)


def log_tail(folder: Path, ranks: int) -> str:
    """The end of the logs of all ranks."""
    parts = []
    for rank in range(ranks):
        text = log_end(folder, rank)
        if text:
            parts.append(f"[rank {rank}]\n{text}")
    return "\n".join(parts)


def log_end(folder: Path, rank: int) -> str:
    """At most the last `LOG_TAIL_CHARACTERS` characters of a rank's log; "" if there is none.

    Only the end is read, as a log may be larger than memory. The list of extension modules that Python's faulthandler
    adds to its stacks is left out: it would leave no room for the stacks.
    """
    path = folder / f"rank{rank}.log"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 4 * LOG_TAIL_CHARACTERS), os.SEEK_END)
        lines = file.read().decode(errors="replace").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("Extension modules: "))
    return text.strip()[-LOG_TAIL_CHARACTERS:]
