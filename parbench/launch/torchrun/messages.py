"""The messages between nodes: JSON, validated against these types before anything in them is used."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from parbench.base_types import Spec
from parbench.records.assignment import Assignment
from parbench.records.node import NodeRecord
from parbench.records.trial import RankRecord
from parbench.system.environment import Environment

HexDigits = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Challenge(Spec):
    """Node 0's first message to a caller: a random number."""

    kind: Literal["challenge"] = "challenge"
    number: HexDigits


class CallerProof(Spec):
    """The caller's reply: its own random number, and the MAC that shows that it has the secret."""

    kind: Literal["proof"] = "proof"
    number: HexDigits
    mac: HexDigits


class LeaderProof(Spec):
    """Node 0's MAC, which shows that it has the secret as well; None for a caller with another secret."""

    kind: Literal["answer"] = "answer"
    mac: HexDigits | None


class GreetingHeader(BaseModel):
    """The part of a greeting that is the same in every version of parbench."""

    node: int
    parbench: str


class NodeGreeting(Spec):
    """A node's identity, and what it must have in common with node 0.

    `session` is drawn once per process and tells a node that comes back from another one of the same rank. `code`,
    `scenario` and `corpora` are digests, `devices` counts by kind, `time` the node's clock in seconds since the epoch.
    """

    kind: Literal["greeting"] = "greeting"
    node: int
    nodes: int
    session: str
    parbench: str
    torch: str | None
    code: str
    scenario: str
    corpora: dict[str, str]
    devices: dict[str, int]
    record: NodeRecord
    environment: Environment
    time: float


class Welcome(Spec):
    """Node 0's reply to a greeting once all nodes are there; `refusal` is the reason if the node cannot take part."""

    kind: Literal["welcome"] = "welcome"
    refusal: str | None = None


class Order(Spec):
    """Node 0's order to take part in a trial with `processes` ranks; its agent listens at `address` and `port`."""

    kind: Literal["order"] = "order"
    assignment: Assignment
    run_id: str
    address: str
    port: int
    processes: int
    deadline_s: float


class End(Spec):
    """Node 0's order to end the ranks of the trial that still run, and to report."""

    kind: Literal["end"] = "end"


class TrialReport(Spec):
    """What a node's ranks left in a trial, by rank; `exit_codes` as in `Outcome`."""

    kind: Literal["report"] = "report"
    run_id: str
    exit_codes: dict[int, int | None]
    ranks: dict[int, RankRecord] = Field(default_factory=dict)
    logs: dict[int, str] = Field(default_factory=dict)
    reason: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every rank ended without an error."""
        return self.reason is None and not any(self.exit_codes.values()) and None not in self.exit_codes.values()


class Over(Spec):
    """Node 0's last message: the campaign is over; `reason` if it was cut short."""

    kind: Literal["over"] = "over"
    reason: str | None = None
