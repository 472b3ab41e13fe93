"""The messages between a SLURM step and its launcher: JSON lines on the step's standard input and output.

A task of a trial receives its assignment and, when all tasks are `Ready`, a `Meeting`; it returns the record and log of
its rank in `FilePiece`s, then a `RankEnd`. A task that inspects its node receives a `Meeting` and returns a
`NodeReport`, in `FilePiece`s too.
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

PIECE_BYTES = 600
"""Keeps lines below 1,024 bytes: srun forwards output in such blocks, and those of different tasks may interleave."""
FileKind = Literal["json", "log"]


class Meeting(Spec):
    """The address and port where the ranks connect to each other."""

    address: str
    port: int


class Ready(Spec):
    """A task is ready and waits for the others; the first task of a trial listens at `port`.

    `node` is SLURM's name of its node, `step` the step's number.
    """

    kind: Literal["ready"] = "ready"
    rank: int
    node: str
    step: str
    port: int | None = None


class FilePiece(Spec):
    """A piece of a rank's record or log, in base64."""

    kind: Literal["part"] = "part"
    rank: int
    file: FileKind
    content: str

    @property
    def data(self) -> bytes:
        """The bytes of the piece."""
        return base64.b64decode(self.content)


class RankEnd(Spec):
    """The end of a rank, and a task's last message; `exit_code` is as in `Outcome`. `interrupted`: SLURM ended it."""

    kind: Literal["ended"] = "ended"
    rank: int
    exit_code: int | None = 0
    interrupted: bool = False


MESSAGE: TypeAdapter[Ready | FilePiece | RankEnd] = TypeAdapter(
    Annotated[Ready | FilePiece | RankEnd, Field(discriminator="kind")]
)


class NodeReport(Spec):
    """A node of an allocation: the devices that the job may use, its software, and the files that it lacks.

    `cores`, `gpus`, `compute_capability` and `gpu_cpus` are as in `Machine`. `code` is the digest of all code that may
    measure there, `clock_s` the node's clock in seconds since the epoch.
    """

    record: NodeRecord
    cores: tuple[tuple[int, ...], ...]
    gpus: int
    compute_capability: tuple[int, int] | None
    gpu_cpus: tuple[tuple[int, ...], ...] = ()
    environment: dict[str, Any]
    code: str
    lacks: tuple[str, ...]
    clock_s: float


def split_file(rank: int, file: FileKind, content: bytes) -> Iterator[FilePiece]:
    """The messages that carry a file."""
    for start in range(0, len(content), PIECE_BYTES):
        piece = content[start : start + PIECE_BYTES]
        yield FilePiece(rank=rank, file=file, content=base64.b64encode(piece).decode())


class Channel:
    """Sends messages from a task to the launcher on standard output; all other output goes to standard error."""

    def __init__(self) -> None:
        self._output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(self, *messages: Spec) -> None:
        """Sends messages."""
        for message in messages:
            self._output.write(message.model_dump_json() + "\n")
        self._output.flush()

    def close(self) -> None:
        """Closes the channel in a rank, which sends nothing itself."""
        self._output.close()


def own_address(meeting: Meeting) -> str:
    """The address of this node on the network of the meeting; no packet is sent to find out."""
    family, kind, _, _, address = socket.getaddrinfo(meeting.address, meeting.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])
