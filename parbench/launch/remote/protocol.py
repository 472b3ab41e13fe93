"""The messages between two versions of parbench: JSON, one message a line.

Each side first sends its `Introduction`; then the server sends a `Greeting` and answers one request after another.
Messages are records, which ignore unknown fields, so a new field with a default does not change the protocol. Any other
change raises `NEWEST`; `OLDEST` rises when support for an old version is removed.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from parbench import __version__
from parbench.base_types import Record
from parbench.system.environment import Environment

OLDEST, NEWEST = 1, 1


class Introduction(Record):
    """The protocol versions that a parbench supports. This message is the same in all versions."""

    parbench: str
    oldest: int
    newest: int

    def speaks_with(self, other: "Introduction") -> bool:
        """Whether both support a common version."""
        return max(self.oldest, other.oldest) <= min(self.newest, other.newest)

    @property
    def range(self) -> str:
        """The supported versions as text, such as `1 to 2`."""
        return f"{self.oldest} to {self.newest}"


HERE = Introduction(parbench=__version__, oldest=OLDEST, newest=NEWEST)


class Greeting(Record):
    """What the server has: its environment, and the files of all modules that it has imported.

    `required` are the fields that an `Assignment` must have there, `purposes` the purposes that it may have.
    """

    environment: Environment
    modules: tuple[str, ...]
    required: tuple[str, ...] = ()
    purposes: tuple[str, ...]


class LaunchRequest(Record):
    """A request to run the trial whose `cell.json` is in `folder`."""

    kind: Literal["launch"] = "launch"
    folder: str
    processes: int
    deadline_s: float


class LaunchReply(Record):
    """How the trial ended, with the fields of `Outcome`."""

    kind: Literal["launch"] = "launch"
    exit_codes: tuple[int | None, ...]
    wall_s: float
    timed_out: bool = False
    reason: str | None = None
    warnings: tuple[str, ...] = ()


class ExamineRequest(Record):
    """A request to check workloads, by name; relative paths in them start at `folder`."""

    kind: Literal["examine"] = "examine"
    folder: str
    workloads: dict[str, dict[str, Any]]


class ExamineReply(Record):
    """Each workload's model with the facts that only building it shows, or the reason why it cannot be built.

    `unknown` are the fields of each workload that the server's version lacks, such as `optimizer.lr`; `modules` are as
    in the greeting, with the modules of the models.
    """

    kind: Literal["examine"] = "examine"
    models: dict[str, dict[str, Any]]
    refusals: dict[str, str] = Field(default_factory=dict)
    unknown: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    modules: tuple[str, ...]


class Refusal(Record):
    """Why the server cannot answer a request."""

    kind: Literal["refusal"] = "refusal"
    reason: str


Reply = LaunchReply | ExamineReply | Refusal

REQUEST: TypeAdapter[LaunchRequest | ExamineRequest] = TypeAdapter(
    Annotated[LaunchRequest | ExamineRequest, Field(discriminator="kind")]
)
REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])
