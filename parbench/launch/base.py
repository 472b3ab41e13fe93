"""The contract of a launcher: what it is given, and what it returns."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from parbench.errors import UsageError
from parbench.launch.own_cores import with_own_cores
from parbench.records.assignment import Assignment
from parbench.records.corpus import Corpus
from parbench.records.node import NodeRecord
from parbench.registry import Registry
from parbench.system.devices import NOT_STARTED, Machine, detect
from parbench.system.environment import Environment, capture

LAUNCHERS: "Registry[Launcher]" = Registry("parbench.launch", module="launcher")


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where to launch, from the command line. The launcher finds out by itself what is None."""

    nodes: int | None = None
    node_rank: int | None = None
    rendezvous: str | None = None
    rendezvous_timeout: float | None = None
    secret_file: Path | None = None

    @property
    def options(self) -> list[str]:
        """The command-line options that are set, such as `--nodes`."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return [f"--{name.replace('_', '-')}" for name in names]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A campaign on this node. Scenario and data must be the same on all nodes.

    `scenario` is resolved, `folder` is the one that holds its file; `corpora` are the data by workload's name, `code`
    is the digest of the code that measures.
    """

    scenario: dict[str, Any]
    folder: Path
    corpora: dict[str, Corpus]
    machine: Machine
    code: str = ""

    def localize(self, assignment: Assignment) -> Assignment:
        """The assignment with what differs between nodes: cores, and the paths of scenario and data.

        Raises `UsageError` if its model or data are not in this scenario: a model may be code, and the user of this
        node agreed to run the code of this scenario only.
        """
        corpora = {corpus.sha256: corpus for corpus in self.corpora.values()}
        models = [workload["model"] for workload in self.scenario["workloads"].values()]
        corpus = corpora.get(assignment.corpus.sha256)
        if corpus is None or assignment.workload.get("model") not in models:
            raise UsageError(
                f"node 0 asks for {assignment.cell}, whose model or data is not in the scenario of this node; "
                "start all nodes with the same scenario"
            )
        pinned = with_own_cores(assignment, self.machine, self.scenario["devices"]["cores_per_device"])
        return pinned.model_copy(update={"folder": str(self.folder.resolve()), "corpus": corpus})


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """A campaign for a batch system: the command that runs it into `folder`, and options for the batch system."""

    name: str
    folder: Path
    command: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the processes of a trial ended.

    `exit_codes` are by rank, negative for a signal, None for a rank that the launcher ended itself. `wall_s` is the
    time in seconds from the launch to the end of the last rank. `timed_out`: the deadline ended the trial. `reason` is
    an error that the launcher itself saw, such as a lost node. `warnings` say what it did otherwise than asked.
    """

    exit_codes: tuple[int | None, ...]
    wall_s: float
    timed_out: bool = False
    reason: str | None = None
    warnings: tuple[str, ...] = ()


class Launcher(ABC):
    """Starts the ranks of one trial at a time, and ends every process that the trial leaves.

    Defining a subclass with a `name` registers it: `--launcher NAME` selects it.
    """

    name: ClassVar[str]
    follower: "Follower | None" = None
    """Set if another node leads the campaign: then this node follows it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            LAUNCHERS.add(cls.name, cls)

    @classmethod
    def detected(cls) -> str | None:
        """Why the environment calls for this launcher, such as `SLURM_JOB_ID is set`; None if it does not."""
        return None

    @classmethod
    def at(cls, site: Site) -> Self:
        """The launcher for a site. Raises `UsageError` for options that it cannot honour."""
        if site.options:
            raise UsageError(f"{', '.join(site.options)}: not for launcher {cls.name}, which uses one machine")
        return cls()

    @classmethod
    def submit(
        cls,
        job: BatchJob,  # noqa: ARG003 - for overriding
        say: Callable[[str], None],  # noqa: ARG003
        *,
        dry_run: bool,  # noqa: ARG003
    ) -> str | None:
        """Hands a campaign to a batch system and returns the job's id there; `say` prints the steps.

        A dry run only prints them, and returns None. Raises `UsageError` if the launcher has no batch system.
        """
        raise UsageError(f"--submit: launcher {cls.name} has no batch system to submit to")

    def machine(self) -> Machine:
        """The devices that trials can use. A launcher that starts MPS for trials that ask for it says where it can."""
        return replace(detect(), no_mps=NOT_STARTED)

    def environment(self, nodes: Sequence[NodeRecord]) -> Environment:
        """The environment in which trials on these nodes are measured."""
        return capture([node.link for node in nodes])

    def start(self) -> None:  # noqa: B027 - most launchers have nothing to start
        """Starts what takes a while to get ready, without waiting for it."""

    @contextmanager
    def gathered(self, campaign: Campaign) -> Iterator[tuple[NodeRecord, ...]]:  # noqa: ARG002 - for overriding
        """Keeps all nodes of a campaign connected while the block runs. Raises `UsageError` if they do not agree."""
        yield ()

    @abstractmethod
    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        """Runs the worker on `folder/cell.json` in `processes` ranks, equally many on each of the first `nodes` nodes.

        Returns when all ranks have ended, at the latest `deadline_s` seconds after the start; their records and logs
        are in `folder`.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the launcher's own processes, and every rank that still runs."""


class Follower(ABC):
    """A node's part in a campaign that another node leads."""

    @abstractmethod
    def follow(self, campaign: Campaign) -> None:
        """Takes part until the campaign is over. Raises `UsageError` if the nodes do not agree."""
