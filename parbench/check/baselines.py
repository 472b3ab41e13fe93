"""Stored baselines: what every launch of a few sessions measured, in a small file for git that people can read."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from parbench.base_types import Record
from parbench.check.observations import observe
from parbench.errors import BaselineError, NothingMeasuredError, ResultsError, UsageError
from parbench.figures.definitions import FIGURES
from parbench.results.store import Run
from parbench.scenario.specs import MetricName
from parbench.system.digests import digest_of_json
from parbench.system.environment import differ
from parbench.system.files import write_whole
from parbench.system.reading import read_whole

SCHEMA_VERSION = 1
MAX_SESSIONS = 30
MAX_BYTES = 100_000_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class CellValues(Record):
    """A cell in one session: the hash of what was measured, and each metric's value in every round.

    Of another parbench there may be metrics that this one does not have.
    """

    key: str
    metrics: dict[str, tuple[float, ...]]


class Session(Record):
    """One run: where it comes from and what it measured."""

    run: str
    created_at: str
    commit: str | None
    parbench: str | None
    scenario: str
    scenario_sha256: str
    cells: dict[str, CellValues]


class Baseline(Record):
    """Sessions of one environment, the oldest first; `digest` is the hash of all the rest of the file."""

    schema_version: int = SCHEMA_VERSION
    name: str
    environment: dict[str, Any]
    sessions: tuple[Session, ...]
    digest: str = ""

    @property
    def keys(self) -> dict[str, str]:
        """Every cell's id with the hash of what was last measured under it, in the scenario of the newest session.

        A cell that the scenario lost is no longer missing once a session without it is saved.
        """
        scenario = self.sessions[-1].scenario_sha256 if self.sessions else None
        current = [session for session in self.sessions if session.scenario_sha256 == scenario]
        return {name: cell.key for session in current for name, cell in session.cells.items()}

    def holds(self, run: Run) -> bool:
        """Whether the run is a session of it. Folders, and so ids, are used again; the moment tells runs apart."""
        return any(
            (session.run, session.created_at) == (run.record.id, run.record.created_at) for session in self.sessions
        )

    def values(self, cell: str, metric: MetricName) -> list[tuple[float, ...]]:
        """A cell's rounds, session by session, of those sessions that measured what the last one did."""
        cells = [session.cells[cell] for session in self.sessions if cell in session.cells]
        return [each.metrics[metric] for each in cells if each.key == cells[-1].key and metric in each.metrics]


class ForeignField(NamedTuple):
    """A field of the environment that is not what it was."""

    field: str
    baseline: object
    run: object

    def __str__(self) -> str:
        return f"{self.field}: {_quote(self.baseline)} in the baseline, {_quote(self.run)} now"


def speed_of(run: Run) -> dict[str, Any]:
    """The part of a run's environment that changes speed: no host, no load, no time."""
    speed = run.record.environment.get("speed")
    if not isinstance(speed, dict):
        raise ResultsError(f"{run.folder} does not say in which environment it was measured; measure again")
    return speed


def foreign_fields(baseline: Mapping[str, Any], run: Mapping[str, Any]) -> list[ForeignField]:
    """The fields in which two environments differ.

    A baseline from before NCCL's version was recorded says nothing of it; torch, which is compared, comes with its own.
    """
    ours, theirs = _flat(baseline), _flat(run)
    names = dict.fromkeys(name for name in (*ours, *theirs) if name != "nccl" or name in ours)
    return [
        ForeignField(name, ours.get(name), theirs.get(name))
        for name in names
        if differ(ours.get(name), theirs.get(name))
    ]


def scenario_sha256(run: Run) -> str:
    """The hash of the scenario of a run, as far as it changes what is measured."""
    return digest_of_json(run.record.measured_scenario)


def save(run: Run, name: str, folder: Path) -> Baseline:
    """Adds the run to the baseline `name` as its newest session; the oldest drops out.

    Raises `NothingMeasuredError` for a run without a good cell, and `UsageError` for one that is there already or was
    taken in another environment.
    """
    path, session = baseline_path(name, folder), _session(run)
    earlier = load(name, folder) if path.exists() else Baseline(name=name, environment=speed_of(run), sessions=())
    foreign = foreign_fields(earlier.environment, speed_of(run))
    if foreign:
        listed = "\n".join(f"  {each}" for each in foreign)
        raise UsageError(f"baseline '{name}' is of another environment; save this run under another name:\n{listed}")
    if earlier.holds(run):
        raise UsageError(f"run {session.run} is in baseline '{name}' already; measure again to add a session")
    baseline = earlier.model_copy(update={"sessions": (*earlier.sessions, session)[-MAX_SESSIONS:]})
    baseline = baseline.model_copy(update={"digest": digest_of(baseline.model_dump(mode="json"))})
    _write(path, _readable(baseline.model_dump(mode="json")))
    return baseline


def load(name: str, folder: Path) -> Baseline:
    """The baseline `name`. Raises `BaselineError` where there is none, or none as parbench wrote it."""
    path = baseline_path(name, folder)
    try:
        text = read_whole(path, MAX_BYTES).decode()
    except FileNotFoundError:
        raise BaselineError(f"there is no baseline '{name}' in {folder}; known are {_names(folder)}") from None
    except OSError as error:
        raise BaselineError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BaselineError(f"{path} cannot be read: it is not UTF-8 text") from None
    if not text.strip():
        raise BaselineError(f"{path} is empty; get it back from git, or save the baseline again")
    try:
        content = json.loads(text)
        version = content["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BaselineError(f"{path} is cut off or no baseline; get it back from git, or save it again") from None
    if version != SCHEMA_VERSION:
        raise BaselineError(f"{path} has schema version {version}; this parbench reads version {SCHEMA_VERSION}")
    try:
        baseline = Baseline.model_validate_json(text)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        place = ".".join(map(str, detail["loc"]))
        raise BaselineError(f"{path} is damaged at {place}: {detail['msg']}; get it back from git") from None
    if baseline.digest != digest_of(content):
        raise BaselineError(f"{path} was edited after it was saved: its digest is not that of its content")
    if not baseline.sessions:
        raise BaselineError(f"{path} holds no session; save a run first")
    return baseline


def rounded(metric: MetricName, value: float) -> float:
    """A value as it is stored: of what is measured, six digits are far below the noise; counts stay exact."""
    return value if FIGURES[metric].gate == "exact" else float(f"{value:.6g}")


def list_baselines(folder: Path) -> list[str]:
    """The names of what is stored, sorted."""
    return sorted(path.stem for path in folder.glob("*.json") if path.is_file() and NAME.fullmatch(path.stem))


def baseline_path(name: str, folder: Path) -> Path:
    """Where `name` is kept, always directly below `folder`. Raises `UsageError` for what is no name."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a baseline: use up to 100 letters, digits, dots, dashes and underscores"
        )
    return folder / f"{name}.json"


def summarise_contents(baseline: Baseline) -> Iterator[str]:
    """A baseline in lines: its environment, its sessions, its cells."""
    yield f"baseline {baseline.name}: {len(baseline.sessions)} sessions, {len(baseline.keys)} cells"
    yield from (f"  {field}: {_quote(value)}" for field, value in _flat(baseline.environment).items() if value)
    for session in baseline.sessions:
        commit = f", commit {session.commit[:12]}" if session.commit else ""
        yield f"session {session.run}: {session.created_at}, scenario {session.scenario}{commit}"
        for name, cell in session.cells.items():
            steps = cell.metrics.get("step_time_min_s", ())
            milliseconds = ", ".join(f"{1000 * value:.4g}" for value in steps)
            yield f"  {name}: fastest steps {milliseconds} ms"


def digest_of(content: Mapping[str, Any]) -> str:
    """The hash of a baseline as it stands in its file, also of what another parbench wrote that this one leaves out."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return digest_of_json(rest)


def _session(run: Run) -> Session:
    cells = {
        name: CellValues(
            key=cell.key,
            metrics={
                metric: tuple(rounded(metric, by_round[number]) for number in sorted(by_round))
                for metric, by_round in cell.metrics.items()
            },
        )
        for name, cell in observe(run).items()
        if cell.status == "ok" and cell.metrics
    }
    if not cells:
        raise NothingMeasuredError(f"{run.folder} has no cell that was measured well: there is nothing to keep")
    context = run.record.environment.get("context") or {}
    return Session(
        run=run.record.id,
        created_at=run.record.created_at,
        commit=context.get("git_commit"),
        parbench=context.get("parbench"),
        scenario=str(run.record.scenario.get("name", "")),
        scenario_sha256=scenario_sha256(run),
        cells=cells,
    )


def _readable(content: Mapping[str, Any]) -> str:
    """JSON with a line a metric: lists of plain values are not broken up."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    lists = re.compile(r"\[\s+([^\[\]{}\"]*?)\s+\]")
    return lists.sub(lambda values: f"[{' '.join(values[1].split())}]", text) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise ResultsError(f"{path} cannot be written: {error.strerror}") from None


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _quote(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _names(folder: Path) -> str:
    return ", ".join(list_baselines(folder)) or "none"
