"""What two parbenches say to each other, a JSON message a line, whatever else differs between them.

Each side's first line is its `Introduction`, then the server greets, then it answers one request after another. All are
records, which leave out what they do not know: a new field with a default is no new version of the protocol. Anything
else is one, and `NEWEST` rises; `OLDEST` rises when the code that spoke it goes.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from parbench import __version__
from parbench.base_types import Record
from parbench.system.environment import Environment

OLDEST, NEWEST = 1, 1


class Introduction(Record):
    """The versions of the protocol that a parbench speaks. It is the same in all of them."""

    parbench: str
    oldest: int
    newest: int

    def speaks_with(self, other: "Introduction") -> bool:
        """Whether there is a version that both speak."""
        return max(self.oldest, other.oldest) <= min(self.newest, other.newest)

    @property
    def range(self) -> str:
        """The versions in words."""
        return f"{self.oldest} to {self.newest}"


HERE = Introduction(parbench=__version__, oldest=OLDEST, newest=NEWEST)


class Greeting(Record):
    """What is there: where trials are measured, and the files of all modules that are imported so far.

    `required` are the fields that an assignment must have there, `purposes` those that it can have.
    """

    environment: Environment
    modules: tuple[str, ...]
    required: tuple[str, ...] = ()
    purposes: tuple[str, ...]


class LaunchRequest(Record):
    """Run the trial whose `cell.json` is in `folder`."""

    kind: Literal["launch"] = "launch"
    folder: str
    processes: int
    deadline_s: float


class LaunchReply(Record):
    """How it ended; the fields are those of `Outcome`."""

    kind: Literal["launch"] = "launch"
    exit_codes: tuple[int | None, ...]
    wall_s: float
    timed_out: bool = False
    reason: str | None = None


class ExamineRequest(Record):
    """Look at workloads, by name: paths in them start at `folder`."""

    kind: Literal["examine"] = "examine"
    folder: str
    workloads: dict[str, dict[str, Any]]


class ExamineReply(Record):
    """Each workload's model with what only building it could tell, or why it cannot be built.

    `unknown` are the fields of each workload that are not known there, such as `optimizer.lr`; `modules` as in the
    greeting, with those that the models were found in.
    """

    kind: Literal["examine"] = "examine"
    models: dict[str, dict[str, Any]]
    refusals: dict[str, str] = Field(default_factory=dict)
    unknown: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    modules: tuple[str, ...]


class Refusal(Record):
    """Why a request cannot be met at all."""

    kind: Literal["refusal"] = "refusal"
    reason: str


Reply = LaunchReply | ExamineReply | Refusal

REQUEST: TypeAdapter[LaunchRequest | ExamineRequest] = TypeAdapter(
    Annotated[LaunchRequest | ExamineRequest, Field(discriminator="kind")]
)
REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])
