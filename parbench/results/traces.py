"""The traces of a cell's ranks as one file, which opens in Perfetto or chrome://tracing."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from parbench.errors import ResultsError
from parbench.records.account import MEETING, trace_file
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial
from parbench.results.store import Run
from parbench.system.files import made, opened, write_all, writing
from parbench.text import plain

FOLDER = "traces"
MAX_BYTES = 2_000_000_000
"""Of one rank's trace, uncompressed."""

Event = dict[str, Any]


def merge_traces(run: Run, cell: CellRecord) -> Path:
    """Writes the traces of the cell's last traced launch as one file in the run's folder; its path.

    A rank is a process there. Times begin where all ranks of a model met before the watched steps, so that clocks of
    two machines are never compared. Raises `ResultsError` where no rank's trace is at hand.
    """
    for trial in reversed(_launches(run, cell)):
        folder = run.folder / "trials" / _folder_name(trial)
        files = {rank.rank: trace_file(folder, rank.rank) for rank in trial.ranks}
        present = {rank: path for rank, path in files.items() if path.is_file() and not path.is_symlink()}
        if present:
            break
    else:
        raise ResultsError(
            f"{run.folder} has no trace of {cell.id}: measure it with --trace, or measure.trace: true in the scenario; "
            "traces stay on the machine whose ranks wrote them"
        )
    events = [event for rank, path in present.items() for event in _read_rank(path, rank, cell)]
    merged = json.dumps({"displayTimeUnit": "ms", "traceEvents": events}, separators=(",", ":")).encode()
    target = run.folder / FOLDER / f"{_safe(cell.id)[:100]}-{_safe(cell.key)}.json.gz"
    with writing(target.parent):
        made(target.parent)
        target.unlink(missing_ok=True)
        with opened(target, "xb") as file:
            write_all(file, gzip.compress(merged, mtime=0))
    return target


def _safe(name: str) -> str:
    """The name with dashes for all that need not be safe in a file's name."""
    return re.sub(r"[^A-Za-z0-9=.-]+", "-", name).strip("-.")


def _launches(run: Run, cell: CellRecord) -> list[Trial]:
    return [trial for trial in run.trials if trial.purpose == "measure" and trial.key == cell.key]


def _folder_name(trial: Trial) -> str:
    return f"r{trial.round:03d}-{trial.key}" + f"-{trial.repeat}" * (trial.repeat > 0)


def _read_rank(path: Path, rank: int, cell: CellRecord) -> Iterator[Event]:
    """The events of one rank, which is a process of its own in the merged trace."""
    events = _read_events(path)
    start = next((float(each["ts"]) + float(each["dur"]) for each in events if each.get("name") == MEETING), 0.0)
    yield {"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"rank {rank} of {cell.id}"}}
    yield {"ph": "M", "name": "process_sort_index", "pid": rank, "args": {"sort_index": rank}}
    for event in events:
        if event.get("ph") == "M" and event.get("name", "").startswith("process_"):
            continue
        timed = {"ts": float(event["ts"]) - start} if "ts" in event else {}
        # Flows are joined by their ids, which every rank counts from the same number.
        named = {"id": f"{rank}-{event['id']}"} if "id" in event else {}
        yield {**event, "pid": rank, **timed, **named}


def _read_events(path: Path) -> list[Event]:
    """The events of a Chrome trace. Raises `ResultsError` where the file holds none."""
    try:
        with gzip.open(path) as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ResultsError(f"{path} is larger than {MAX_BYTES:,} bytes")
        events = json.loads(text)["traceEvents"]
        if not all(isinstance(event, dict) for event in events):
            raise TypeError
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        raise ResultsError(f"{path} holds no trace that can be read; measure its cell again with --trace") from None
    return list(events)


def select_cells(run: Run, glob: str) -> list[CellRecord]:
    """The cells whose id matches, and that were measured. Raises `ResultsError` where none does."""
    matching = [cell for cell in run.record.cells if fnmatchcase(cell.id, glob)]
    if not matching:
        names = ", ".join(plain(cell.id) for cell in run.record.cells if cell.reason is None)
        raise ResultsError(f"no cell of {run.folder} is called {plain(glob)}; its cells are {names}")
    return [cell for cell in matching if _launches(run, cell)] or matching
