"""What nodes say to each other. All of it is JSON, and checked against these types before it is believed."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from parbench.base_types import Spec
from parbench.records.assignment import Assignment
from parbench.records.node import NodeRecord
from parbench.records.trial import RankRecord
from parbench.system.environment import Environment

HexDigits = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Challenge(Spec):
    """The first that node 0 says to a caller: a number that was never there before."""

    kind: Literal["challenge"] = "challenge"
    number: HexDigits


class Proof(Spec):
    """The caller's answer: a number of its own, and what shows that it has the secret."""

    kind: Literal["proof"] = "proof"
    number: HexDigits
    mac: HexDigits


class Answer(Spec):
    """What shows that node 0 has the secret as well; nothing to who has another one."""

    kind: Literal["answer"] = "answer"
    mac: HexDigits | None


class Introduction(BaseModel):
    """What the greeting of every parbench has in it, of whatever version."""

    node: int
    parbench: str


class Greeting(Spec):
    """Who a node is, and what it must have in common with node 0.

    `session` is drawn once a process, so that a node that comes back is known; `code`, `scenario` and `corpora` are
    digests; `devices` how many of each kind there are; `time` is the node's clock as it sends this, in seconds.
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
    """Node 0's answer to a greeting, once all nodes are there; `refusal` says why not."""

    kind: Literal["welcome"] = "welcome"
    refusal: str | None = None


class Order(Spec):
    """Take part in a trial: launch `processes` ranks under node 0's agent, which listens at `address` and `port`."""

    kind: Literal["order"] = "order"
    assignment: Assignment
    run_id: str
    address: str
    port: int
    processes: int
    deadline_s: float


class End(Spec):
    """End what is left of the trial, and report."""

    kind: Literal["end"] = "end"


class Report(Spec):
    """What became of a node's ranks in a trial, by rank; `exit_codes` as in `Outcome`."""

    kind: Literal["report"] = "report"
    run_id: str
    exit_codes: dict[int, int | None]
    ranks: dict[int, RankRecord] = Field(default_factory=dict)
    logs: dict[int, str] = Field(default_factory=dict)
    reason: str | None = None

    @property
    def fine(self) -> bool:
        """Whether every rank ended well."""
        return self.reason is None and not any(self.exit_codes.values()) and None not in self.exit_codes.values()


class Over(Spec):
    """The campaign is over; `reason` where it was cut short."""

    kind: Literal["over"] = "over"
    reason: str | None = None
