"""The contract of a launcher: what it is told, and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from parbench.errors import UsageError
from parbench.records.assignment import Assignment
from parbench.records.corpus import Corpus
from parbench.records.node import NodeRecord
from parbench.registry import Registry
from parbench.system.devices import Machine, detect
from parbench.system.environment import Environment, capture

LAUNCHERS: "Registry[Launcher]" = Registry("parbench.launch", module="launcher")


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
