"""A run's folder: `run.json` says what was planned, `trials.jsonl` grows by a line a trial and never changes."""

import contextlib
import fcntl
import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from parbench.errors import ResultsError
from parbench.records.run import RunRecord
from parbench.records.trial import SCHEMA_VERSION, Trial
from parbench.results.seal import seal, unseal
from parbench.system.files import keeping, opened, sync_names, write_all, writing
from parbench.system.reading import open_regular, read_whole
from parbench.system.signals import uninterrupted

RUN_FILE = "run.json"
TRIALS_FILE = "trials.jsonl"
MAX_BYTES = 100_000_000
"""Of `run.json`."""


@dataclass(frozen=True)
class Run:
    """A run as read back: its plan, its good trials, and what was wrong with the rest.

    `pooled` are the runs that it is made of, where several sessions of one scenario are read as one.
    """

    folder: Path
    record: RunRecord
    trials: tuple[Trial, ...]
    problems: tuple[str, ...]
    pooled: tuple["Run", ...] = ()

    @property
    def sessions(self) -> tuple["Run", ...]:
        """The runs that are pooled in it: itself, where it is a single one."""
        return self.pooled or (self,)

    def counts(self, trial: Trial) -> bool:
        """Whether a trial was taken in the environment and by the code that the run was last started with."""
        return (trial.environment, trial.code) == (self.record.environment_digest, self.record.code)


class Store:
    """Writes a run's folder. One process at a time: a second one is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextlib.contextmanager
    def locked(cls, folder: Path) -> Iterator["Store"]:
        """The store of `folder`, made if need be and held until the end. Raises `ResultsError`."""
        with keeping(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = opened(folder / "lock", "ab+")
        with lock:
            _hold(lock, folder)
            # The lock goes with its process, however that ends: what a dead one left here is only its name.
            with writing(folder):
                lock.truncate(0)
                lock.write(f"{os.getpid()} on {socket.gethostname()}".encode())
            yield cls(folder)

    def begin(self, record: RunRecord) -> None:
        """Writes `run.json` whole or not at all."""
        temporary = self.folder / f"{RUN_FILE}.tmp"
        with writing(self.folder):
            try:
                temporary.unlink(missing_ok=True)
                with opened(temporary, "xb") as file:
                    write_all(file, f"{seal(record.model_dump_json(indent=1))}\n".encode())
                    os.fsync(file.fileno())
                temporary.replace(self.folder / RUN_FILE)
                sync_names(self.folder)
            finally:
                temporary.unlink(missing_ok=True)

    def append(self, trial: Trial) -> None:
        """Adds a line and waits until it is on the disk; of a line that does not fit, nothing stays."""
        line = f"{seal(trial.model_dump_json())}\n".encode()
        with uninterrupted(), writing(self.folder), opened(self.folder / TRIALS_FILE, "ab+") as file:
            size = file.seek(0, os.SEEK_END)
            # What a power cut left of a line becomes a bad line of its own, instead of spoiling this one.
            line = line if _ends_whole(file, size) else b"\n" + line
            try:
                write_all(file, line)
                os.fsync(file.fileno())
                if size == 0:
                    sync_names(self.folder)
            except OSError:
                file.truncate(size)
                raise


def read_run(folder: Path) -> Run:
    """The run in `folder`, bad lines reported in `problems`. Raises `ResultsError` where there is no run to read."""
    try:
        text, broken = unseal(read_whole(folder / RUN_FILE, MAX_BYTES).decode())
        record = RunRecord.model_validate_json(_checked_version(text, folder / RUN_FILE))
    except FileNotFoundError:
        raise ResultsError(f"{folder} holds no run: it has no {RUN_FILE}") from None
    except OSError as error:
        raise ResultsError(f"{folder / RUN_FILE} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ResultsError(f"{folder / RUN_FILE} cannot be read: it is not UTF-8 text") from None
    except ValidationError as error:
        raise ResultsError(f"{folder / RUN_FILE} is damaged: {_first_problem(error)}") from None
    trials, problems = _read_trials(folder / TRIALS_FILE)
    return Run(folder, record, tuple(trials), (*([f"{RUN_FILE}: {broken}"] if broken else []), *problems))


def find_run(selector: str, results: Path) -> Path:
    """The folder that `selector` means: a folder, a run's id below `results`, or `latest`. Raises `ResultsError`."""
    if selector == "latest":
        runs = list_runs(results)
        if not runs:
            raise ResultsError(f"there is no run in {results} yet; start one with: parbench run SCENARIO")
        return runs[-1]
    folder = Path(selector)
    if _holds_run(folder):
        return folder
    below = results / selector
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", selector) and _holds_run(below) and not below.is_symlink():
        return below
    raise ResultsError(f"there is no run '{selector}': it is neither a run's folder nor an id in {results}")


def list_runs(results: Path) -> list[Path]:
    """The folders of all runs directly below `results`, the oldest first."""
    return sorted(
        (path.parent for path in results.glob(f"*/{RUN_FILE}") if path.is_file() and not path.parent.is_symlink()),
        key=lambda folder: ((folder / RUN_FILE).stat().st_mtime_ns, folder.name),
    )


def latest_of(scenario: str, results: Path, say: Callable[[str], None]) -> Path | None:
    """The folder of the newest run of a scenario, if there is one; `say` hears of runs that cannot be read."""
    runs = readable_runs(reversed(list_runs(results)), say)
    return next((run.folder for run in runs if run.record.scenario.get("name") == scenario), None)


def readable_runs(folders: Iterable[Path], say: Callable[[str], None]) -> Iterator[Run]:
    """The runs in `folders`; `say` hears why one is left out."""
    for folder in folders:
        try:
            yield read_run(folder)
        except ResultsError as error:
            say(f"{error}; this run is left out")


def _hold(lock: BinaryIO, folder: Path) -> None:
    """Takes the lock of a run's folder. Raises `ResultsError` where another process has it, or nobody can have it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().decode(errors="replace").strip() or "unknown"
        raise ResultsError(f"{folder} is in use by process {holder}") from None
    except OSError as error:
        raise ResultsError(
            f"{folder} cannot be locked, which keeps two runs apart: {error.strerror}; "
            "choose a folder on another file system with --out"
        ) from None


def _holds_run(folder: Path) -> bool:
    try:
        return (folder / RUN_FILE).is_file()
    except OSError:  # a name that is too long, or a folder that may not be searched
        return False


def _read_trials(path: Path) -> tuple[list[Trial], list[str]]:
    trials: list[Trial] = []
    problems: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            text, problem = unseal(line.decode())
            trial = Trial.model_validate_json(_checked_version(text, path))
        except (ValidationError, UnicodeDecodeError) as error:
            problem = _first_problem(error) if isinstance(error, ValidationError) else "not UTF-8"
        if problem is None:
            trials.append(trial)
        else:
            problems.append(f"{path.name}, line {number} is left out: {problem}")
    return trials, problems


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, if there is one. Raises `ResultsError` where it cannot be read."""
    try:
        with open_regular(path) as file:
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from None


def _checked_version(text: str, path: Path) -> str:
    """Raises `ResultsError` for a record of another version, rather than guess what its fields mean."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):  # damage, which the model of the record tells in its own words
        return text
    if not isinstance(content, dict):
        return text
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ResultsError(
            f"{path} has records of schema version {version}; this parbench reads version {SCHEMA_VERSION}: "
            "use the parbench that wrote it"
        )
    return text


def _first_problem(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    place = ".".join(map(str, detail["loc"]))
    return f"{place}: {detail['msg']}" if place else detail["msg"]


def _ends_whole(file: BinaryIO, size: int) -> bool:
    if size == 0:
        return True
    file.seek(size - 1)
    return file.read(1) == b"\n"
