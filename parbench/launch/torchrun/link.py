"""A connection between two nodes: JSON messages, sealed once both have proven themselves (`proof.py`).

A peer that is gone or cut off is noticed; nothing is unpickled.
"""

import math
import select
import socket
import struct
import time
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from parbench.launch.torchrun.messages import Answer, Challenge, End, Greeting, Order, Over, Proof, Report, Welcome
from parbench.launch.torchrun.seal import Seal

M = TypeVar("M", bound=BaseModel)


SILENCE_S = 8
"""After so long without a sign of life a peer is gone. The kernel asks for one, so a busy peer gives it too."""


RETRY_S = 0.2


LENGTH = struct.Struct("!I")
"""Goes before each message: its bytes."""


MAX_MESSAGE_BYTES = 256 * 2**20


PIECE_BYTES = 2**16


SENDING_S = 60.0


_MESSAGE: TypeAdapter[BaseModel] = TypeAdapter(
    Annotated[
        Challenge | Proof | Answer | Greeting | Welcome | Order | End | Report | Over, Field(discriminator="kind")
    ]
)


class LinkError(Exception):
    """The peer is gone, cannot be reached, or speaks otherwise: the text says which. `hung_up`: it has closed."""

    def __init__(self, told: str, *, hung_up: bool = False) -> None:
        super().__init__(told)
        self.hung_up = hung_up


class LateError(LinkError):
    """The peer is there, and has not said all of it in time."""


class Link:
    """Messages to and from one other node."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE_S - 3)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address: str = connected.getsockname()[0]
        self._socket = connected
        self._beginning = bytearray()
        self._seal: Seal | None = None

    def fileno(self) -> int:
        """For waiting on several links at once."""
        return self._socket.fileno()

    @property
    def hung_up(self) -> bool:
        """Whether the peer has closed its end, even where something that it said before is still to be heard."""
        ends = select.poll()
        ends.register(self._socket, select.POLLRDHUP)
        return bool(ends.poll(0))

    def seal(self, seal: Seal) -> None:
        """Seals what is said from now on, either way."""
        self._seal = seal

    def send(self, message: BaseModel) -> None:
        """Raises `LinkError` where the peer is gone, or does not listen."""
        content = message.model_dump_json().encode()
        content = self._seal.close(content) if self._seal else content
        try:
            self._socket.settimeout(SENDING_S)
            self._socket.sendall(LENGTH.pack(len(content)) + content)
        except OSError as error:
            raise LinkError(_told(error)) from None

    def receive(self, timeout_s: float | None = None, limit: int = MAX_MESSAGE_BYTES) -> bytes:
        """The next message as it came, whole before the time is up. Raises `LinkError` where none comes.

        Without a time one may wait for its beginning, but not for the rest. What has come of one that is late is kept.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while missing := self._missing(limit):
            silence_s = SILENCE_S if self._beginning else math.inf
            self._beginning += self._read(missing, min(silence_s, deadline - time.monotonic()))
        content, self._beginning = bytes(self._beginning[LENGTH.size :]), bytearray()
        try:
            return self._seal.open(content) if self._seal else content
        except ValueError:
            raise LinkError("sent what does not bear its seal") from None

    def _missing(self, limit: int) -> int:
        """How many bytes are missing of a message, as far as it has said how long it is."""
        if len(self._beginning) < LENGTH.size:
            return LENGTH.size - len(self._beginning)
        (length,) = LENGTH.unpack_from(self._beginning)
        if length > limit:
            self._beginning.clear()
            raise LinkError("sent what is no message of parbench")
        return LENGTH.size + int(length) - len(self._beginning)

    def _read(self, size: int, patience_s: float) -> bytes:
        """At most so many bytes, and at least one."""
        try:
            self._socket.settimeout(None if patience_s == math.inf else max(0.0, patience_s))
            piece = self._socket.recv(min(size, PIECE_BYTES))
        except (TimeoutError, BlockingIOError):
            raise LateError("said nothing, or not all of it, in time") from None
        except OSError as error:
            raise LinkError(_told(error)) from None
        if not piece:
            raise LinkError("hung up", hung_up=True)
        return piece

    def expect(self, kind: type[M], timeout_s: float | None = None) -> M:
        """The next message, which must be of one kind."""
        message = self.message(timeout_s)
        if not isinstance(message, kind):
            raise LinkError(f"sent {type(message).__name__} where {kind.__name__} was due")
        return message

    def message(self, timeout_s: float | None = None) -> BaseModel:
        """The next message, of any kind there is."""
        try:
            return _MESSAGE.validate_json(self.receive(timeout_s))
        except ValidationError as error:
            raise LinkError(f"sent what is no message of this parbench: {error.errors()[0]['msg']}") from None

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()


def connect(host: str, port: int, timeout_s: float) -> Link:
    """A link to who listens there; tried again until the deadline, because they may start later. Or `LinkError`."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return Link(socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic())))
        except OSError as error:
            if time.monotonic() + RETRY_S >= deadline:
                raise LinkError(_told(error)) from None
        time.sleep(RETRY_S)


def endpoint(host: str, port: int) -> str:
    """As one writes it, with IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _told(error: OSError) -> str:
    return f"did not answer ({error.strerror or error})"
