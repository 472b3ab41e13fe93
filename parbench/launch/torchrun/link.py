"""A connection between two nodes: JSON messages, sealed after the handshake (`handshake.py`).

The loss of a peer or of the network is detected. Nothing that is received is unpickled.
"""

import math
import select
import socket
import struct
import time
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from parbench.launch.torchrun.messages import (
    CallerProof,
    Challenge,
    End,
    LeaderProof,
    NodeGreeting,
    Order,
    Over,
    TrialReport,
    Welcome,
)
from parbench.launch.torchrun.seal import Seal

M = TypeVar("M", bound=BaseModel)

SILENCE_S = 8
"""A peer is lost after so many seconds without a TCP keep-alive reply; kernels reply even if the peer is busy."""
RETRY_S = 0.2
LENGTH = struct.Struct("!I")
"""The header of each message: its length in bytes."""
MAX_MESSAGE_BYTES = 256 * 2**20
PIECE_BYTES = 2**16
SENDING_S = 60.0

_MESSAGE: TypeAdapter[BaseModel] = TypeAdapter(
    Annotated[
        Challenge | CallerProof | LeaderProof | NodeGreeting | Welcome | Order | End | TrialReport | Over,
        Field(discriminator="kind"),
    ]
)


class LinkError(Exception):
    """The peer is gone, cannot be reached, or sent something invalid; the text is a predicate, such as `hung up`.

    `hung_up`: the peer closed the connection.
    """

    def __init__(self, text: str, *, hung_up: bool = False) -> None:
        super().__init__(text)
        self.hung_up = hung_up


class LateError(LinkError):
    """The peer is connected, but has not sent a whole message in time."""


class Link:
    """Sends messages to another node, and receives its messages."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE_S - 3)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address: str = connected.getsockname()[0]
        self._socket = connected
        self._received = bytearray()
        self._seal: Seal | None = None

    def fileno(self) -> int:
        """The socket's file descriptor, to wait for several links at once."""
        return self._socket.fileno()

    @property
    def hung_up(self) -> bool:
        """Whether the peer has closed its end, even if earlier messages have not been read yet."""
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def seal(self, seal: Seal) -> None:
        """Seals all later messages, in both directions."""
        self._seal = seal

    def send(self, message: BaseModel) -> None:
        """Sends a message. Raises `LinkError` if the peer is gone, or does not read for `SENDING_S` seconds."""
        content = message.model_dump_json().encode()
        content = self._seal.close(content) if self._seal else content
        try:
            self._socket.settimeout(SENDING_S)
            self._socket.sendall(LENGTH.pack(len(content)) + content)
        except OSError as error:
            raise LinkError(_reason(error)) from None

    def receive(self, timeout_s: float | None = None, limit: int = MAX_MESSAGE_BYTES) -> bytes:
        """The bytes of the next message.

        Raises `LinkError` if none comes; `LateError` if it is not complete within `timeout_s` seconds, and then the
        next call goes on where this one stopped. Without a timeout, only the wait for its first byte is unlimited.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while missing := self._missing(limit):
            silence_s = SILENCE_S if self._received else math.inf
            self._received += self._read(missing, min(silence_s, deadline - time.monotonic()))
        content, self._received = bytes(self._received[LENGTH.size :]), bytearray()
        try:
            return self._seal.open(content) if self._seal else content
        except ValueError:
            raise LinkError("sent a message with an invalid seal") from None

    def _missing(self, limit: int) -> int:
        """How many bytes are missing of the header or, once that is complete, of the message."""
        if len(self._received) < LENGTH.size:
            return LENGTH.size - len(self._received)
        (length,) = LENGTH.unpack_from(self._received)
        if length > limit:
            self._received.clear()
            raise LinkError("sent something that is not a message of parbench")
        return LENGTH.size + int(length) - len(self._received)

    def _read(self, size: int, patience_s: float) -> bytes:
        """Reads at least one byte, and at most `size`."""
        try:
            self._socket.settimeout(None if patience_s == math.inf else max(0.0, patience_s))
            piece = self._socket.recv(min(size, PIECE_BYTES))
        except (TimeoutError, BlockingIOError):
            raise LateError("did not send a whole message in time") from None
        except OSError as error:
            raise LinkError(_reason(error)) from None
        if not piece:
            raise LinkError("hung up", hung_up=True)
        return piece

    def expect(self, kind: type[M], timeout_s: float | None = None) -> M:
        """The next message. Raises `LinkError` if it is not of this kind."""
        message = self.message(timeout_s)
        if not isinstance(message, kind):
            raise LinkError(f"sent {type(message).__name__} instead of {kind.__name__}")
        return message

    def message(self, timeout_s: float | None = None) -> BaseModel:
        """The next message, of any kind. Raises `LinkError` if it is not valid."""
        try:
            return _MESSAGE.validate_json(self.receive(timeout_s))
        except ValidationError as error:
            raise LinkError(
                f"sent something that is not a message of this version of parbench: {error.errors()[0]['msg']}"
            ) from None

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


def connect(host: str, port: int, timeout_s: float) -> Link:
    """A link to the node that listens there. Retries until the timeout, as that node may start later.

    Raises `LinkError` with the last error.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return Link(socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic())))
        except OSError as error:
            if time.monotonic() + RETRY_S >= deadline:
                raise LinkError(_reason(error)) from None
        time.sleep(RETRY_S)


def endpoint(host: str, port: int) -> str:
    """The text `HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    return f"did not answer ({error.strerror or error})"
