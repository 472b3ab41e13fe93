"""What a SLURM step and its launcher tell each other: JSON, a line each, over the step's standard input and output.

A task of a trial is sent its assignment and, when all are `Ready`, a `Meeting`; it answers with what its rank left, in
`Part`s, and with `Ended`. A task that only looks at its node is sent a `Meeting` and leaves a `NodeReport`.
"""

import base64
import os
import socket
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from parbench.base_types import Spec
from parbench.records.node import NodeRecord

# srun passes lines on in pieces of 1,024 bytes, between which those of other tasks may come.
PART_BYTES = 600


FileKind = Literal["json", "log"]


class Meeting(Spec):
    """Where the ranks meet."""

    address: str
    port: int


class Ready(Spec):
    """A task that waits for the others; the first of a trial has a port open to meet at.

    `node` is SLURM's name for its node, `step` the step's number.
    """

    kind: Literal["ready"] = "ready"
    rank: int
    node: str
    step: str
    port: int | None = None


class Part(Spec):
    """A piece of the record or of the log that a rank left."""

    kind: Literal["part"] = "part"
    rank: int
    file: FileKind
    content: str


class Ended(Spec):
    """The end of a rank, as in `Outcome.exit_codes`; nothing follows. `interrupted`: SLURM told it to end."""

    kind: Literal["ended"] = "ended"
    rank: int
    exit_code: int | None = 0
    interrupted: bool = False


Message = Annotated[Ready | Part | Ended, Field(discriminator="kind")]


MESSAGE: TypeAdapter[Ready | Part | Ended] = TypeAdapter(Message)


class NodeReport(Spec):
    """A node of an allocation: what was granted of it, its software, and which of the files it was asked for it lacks.

    `cores`, `gpus` and `compute_capability` are those of a `Machine`; `code` is the digest of all that may measure
    there, `clock_s` its time of day.
    """

    record: NodeRecord
    cores: tuple[tuple[int, ...], ...]
    gpus: int
    compute_capability: tuple[int, int] | None
    environment: dict[str, Any]
    code: str
    lacks: tuple[str, ...]
    clock_s: float


def parts(rank: int, file: FileKind, content: bytes) -> Iterator[Part]:
    """A file in pieces that each fit on a line."""
    for start in range(0, len(content), PART_BYTES):
        piece = content[start : start + PART_BYTES]
        yield Part(rank=rank, file=file, content=base64.b64encode(piece).decode())


def content_of(part: Part) -> bytes:
    """The bytes of a piece."""
    return base64.b64decode(part.content)


class Channel:
    """From a task to the launcher: its standard output, while whatever else it prints goes to standard error."""

    def __init__(self) -> None:
        self._output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(self, *messages: Spec) -> None:
        """Sends messages."""
        for message in messages:
            self._output.write(message.model_dump_json() + "\n")
        self._output.flush()

    def close(self) -> None:
        """For a rank, which says nothing here."""
        self._output.close()


def own_address(meeting: Meeting) -> str:
    """The address that this node has on the network of the meeting; nothing is sent there."""
    family, kind, _, _, address = socket.getaddrinfo(meeting.address, meeting.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])
