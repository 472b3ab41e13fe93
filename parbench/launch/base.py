"""The contract of launchers, and how what is left in a trial's folder becomes a trial."""

import math
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from pydantic import ValidationError

from parbench.devices import Machine, detect
from parbench.environment import Environment, capture
from parbench.errors import UsageError
from parbench.registry import Registry
from parbench.results.files import made, opened, write_all, writing
from parbench.results.trial import Assignment, Failure, NodeRecord, RankRecord, Stage, Status
from parbench.workloads.corpus import Corpus

LAUNCHERS: "Registry[Launcher]" = Registry("parbench.launch")

LOG_TAIL_CHARACTERS = 8000


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where to launch, as the command line says it; None is for the launcher to find out."""

    nodes: int | None = None
    node_rank: int | None = None
    rendezvous: str | None = None
    rendezvous_timeout: float | None = None
    secret_file: Path | None = None

    @property
    def given(self) -> list[str]:
        """The options that were written, such as `--nodes`."""
        written = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return [f"--{name.replace('_', '-')}" for name in written]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A campaign as this node knows it. All nodes must agree on the scenario and the data.

    `scenario` is resolved, `folder` its own; `corpora` are the data by workload, `code` the digest of what measures.
    """

    scenario: dict[str, Any]
    folder: Path
    corpora: dict[str, Corpus]
    machine: Machine
    code: str = ""

    def here(self, assignment: Assignment) -> Assignment:
        """The assignment with what differs from node to node: cores, and where scenario and data lie.

        Raises `UsageError` where its model or data are not in this scenario: a model may be code, and this node's user
        has agreed to that of the scenario only.
        """
        corpora = {corpus.sha256: corpus for corpus in self.corpora.values()}
        models = [workload["model"] for workload in self.scenario["workloads"].values()]
        corpus = corpora.get(assignment.corpus.sha256)
        if corpus is None or assignment.workload.get("model") not in models:
            raise UsageError(
                f"node 0 asks for {assignment.cell}, whose model or data is not in the scenario of this node"
            )
        cores = self.machine.shares(len(assignment.cores), self.scenario["devices"]["cores_per_device"])
        return assignment.model_copy(update={"cores": cores, "folder": str(self.folder.resolve()), "corpus": corpus})


@dataclass(frozen=True, kw_only=True)
class Job:
    """A campaign for a batch system: the command that runs it into `folder`, and the options of the job."""

    name: str
    folder: Path
    command: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the processes of a trial ended.

    `exit_codes` by rank, negative for a signal (None: the launcher ended that rank itself); `wall_s` seconds from the
    launch to the end of the last one; `timed_out` where the deadline ended it; `reason` is what the launcher itself
    knows to have gone wrong.
    """

    exit_codes: tuple[int | None, ...]
    wall_s: float
    timed_out: bool = False
    reason: str | None = None


class Launcher(ABC):
    """Starts the ranks of one trial at a time and ends whatever is left of them.

    A subclass with a `name` is registered when it is defined: `--launcher NAME` chooses it.
    """

    name: ClassVar[str]
    follower: "Follower | None" = None
    """Set where another node leads the campaign, and this one does what it says."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            LAUNCHERS.add(cls.name, cls)

    @classmethod
    def detected(cls) -> str | None:
        """What in the environment asks for this launcher, such as `SLURM_JOB_ID is set`."""
        return None

    @classmethod
    def at(cls, site: Site) -> Self:
        """The launcher for what the command line says. Raises `UsageError` for what it cannot be."""
        if site.given:
            raise UsageError(f"{', '.join(site.given)}: not for launcher {cls.name}, which uses one machine")
        return cls()

    @classmethod
    def submit(
        cls,
        job: Job,  # noqa: ARG003 - for overriding
        say: Callable[[str], None],  # noqa: ARG003
        *,
        dry_run: bool,  # noqa: ARG003
    ) -> str | None:
        """Hands a campaign to a batch system and returns what that calls it; `say` hears what is done.

        On a dry run that is only shown.
        """
        raise UsageError(f"--submit: launcher {cls.name} has no batch system to submit to")

    def machine(self) -> Machine:
        """What there is to launch on."""
        return detect()

    def environment(self, nodes: Sequence[NodeRecord]) -> Environment:
        """What trials on these nodes are measured in."""
        return capture([node.link for node in nodes])

    def start(self) -> None:  # noqa: B027 - most have nothing to begin
        """Begins what takes a while, without waiting for it."""

    @contextmanager
    def gathered(self, campaign: Campaign) -> Iterator[tuple[NodeRecord, ...]]:  # noqa: ARG002 - for overriding
        """Lasts as long as a campaign, with every node of it there. Raises `UsageError` where they do not agree."""
        yield ()

    @abstractmethod
    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        """Runs the worker on `folder/cell.json` in `processes` ranks, equally many on each of the first `nodes` nodes.

        Returns when all have ended and their records and logs are in `folder`.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends what serves launches, and any rank that still runs."""


class Follower(ABC):
    """A node's part in a campaign that another node leads."""

    @abstractmethod
    def follow(self, campaign: Campaign) -> None:
        """Takes part until the campaign is over. Raises `UsageError` where the nodes do not agree."""


def prepare_folder(folder: Path, assignment: Assignment) -> None:
    """Makes an empty trial folder with its `cell.json`. Raises `ResultsError` where it cannot be written."""
    with writing(folder):
        made(folder)
        for leftover in [folder / "cell.json", *folder.glob("rank*")]:
            leftover.unlink(missing_ok=True)
        write_new(folder / "cell.json", assignment.model_dump_json(indent=2).encode())


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that is not there yet, and all of it."""
    with opened(path, "xb") as file:
        write_all(file, content)


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


def log_tail(folder: Path, ranks: int) -> str:
    """The end of every rank's output."""
    parts = []
    for rank in range(ranks):
        text = log_end(folder, rank)
        if text:
            parts.append(f"[rank {rank}]\n{text}")
    return "\n".join(parts)


def log_end(folder: Path, rank: int) -> str:
    """The end of a rank's output; nothing where there is none. A log may be larger than memory.

    The names of all extension modules, which Python's faulthandler adds to its stacks, would leave no room for these.
    """
    path = folder / f"rank{rank}.log"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 4 * LOG_TAIL_CHARACTERS), os.SEEK_END)
        lines = file.read().decode(errors="replace").splitlines()
    kept = "\n".join(line for line in lines if not line.startswith("Extension modules: "))
    return kept.strip()[-LOG_TAIL_CHARACTERS:]


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
