"""What one rank's steps spent their time on."""

from pathlib import Path
from typing import Literal, NamedTuple

from parbench.base_types import Record

Part = Literal[
    "forward", "loss", "backward", "optimizer", "other", "communication", "pipeline", "data", "host", "unexplained"
]
"""What a moment of a step is spent on; each moment belongs to one part.

`forward`, `loss`, `backward` and `optimizer` are operators at work in them, `other` is any other operator.
`communication` is exposed: nothing is computed meanwhile. In `pipeline` a rank waits for other stages. `data` is the
next batch, `host` the code between the operators. `unexplained` is what none of these explains.
"""


MEETING = "parbench::meet"
"""The event at whose end all ranks of a model are at the same point: traces of several clocks are laid over it."""


def trace_file(folder: Path, rank: int) -> Path:
    """Where a rank keeps all events of its watched steps, as a Chrome trace, compressed."""
    return folder / f"rank{rank}.trace.json.gz"


class Span(NamedTuple):
    """Some time of a step that is all spent on one part: seconds since the step began."""

    part: Part
    start_s: float
    end_s: float


class ExchangeRecord(Record):
    """The collectives, sends or receives of one kind: calls in a step, and seconds of a step in which one ran.

    Where the calls of the steps are known, `ranks` is the size of their process group, `axis` its name if it is one
    axis of a mesh with names, and `given_bytes` what a step passes to them; otherwise these are None.
    """

    name: str
    axis: str | None = None
    ranks: int | None = None
    calls: float
    seconds: float
    given_bytes: float | None = None


class AccountRecord(Record):
    """The time of a rank's step, as torch's profiler saw it in `steps` steps after the window.

    `profiled_s` are the seconds of a step meanwhile; those in `parts` add up to it. During `overlapped_s` something was
    communicated while the rank did something else. `timeline` is the last of the steps.
    """

    steps: int
    profiled_s: float
    parts: dict[Part, float]
    overlapped_s: float = 0.0
    exchanges: tuple[ExchangeRecord, ...] = ()
    timeline: tuple[Span, ...] = ()
