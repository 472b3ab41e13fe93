"""A connection between two nodes: JSON messages. A peer that is gone or cut off is noticed; nothing is unpickled."""

import socket
import time
from multiprocessing.connection import Connection
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from parbench.launch.messages import End, Greeting, Order, Over, Report, Welcome

M = TypeVar("M", bound=BaseModel)

SILENCE_S = 8
"""After so long without a sign of life a peer is gone. The kernel asks for one, so a busy peer gives it too."""
RETRY_S = 0.2
MAX_MESSAGE_BYTES = 256 * 2**20

_MESSAGE: TypeAdapter[BaseModel] = TypeAdapter(
    Annotated[Greeting | Welcome | Order | End | Report | Over, Field(discriminator="kind")]
)


class LinkError(Exception):
    """The peer is gone, cannot be reached, or speaks otherwise: the text says which. `hung_up`: it has closed."""

    def __init__(self, told: str, *, hung_up: bool = False) -> None:
        super().__init__(told)
        self.hung_up = hung_up


class Link:
    """Messages to and from one other node."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE_S - 3)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address: str = connected.getsockname()[0]
        self._connection = Connection(connected.detach())

    def fileno(self) -> int:
        """For waiting on several links at once."""
        return self._connection.fileno()

    def send(self, message: BaseModel) -> None:
        """Raises `LinkError` where the peer is gone."""
        try:
            self._connection.send_bytes(message.model_dump_json().encode())
        except OSError as error:
            raise LinkError(_told(error)) from None

    def receive(self, timeout_s: float | None = None) -> bytes:
        """The next message as it came. Raises `LinkError` where none comes."""
        try:
            if not self._connection.poll(timeout_s):
                raise LinkError(f"said nothing for {timeout_s:.0f} s")
            return self._connection.recv_bytes(MAX_MESSAGE_BYTES)
        except EOFError:
            raise LinkError("hung up", hung_up=True) from None
        except OSError as error:
            raise LinkError(_told(error)) from None

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
        self._connection.close()


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


def _told(error: OSError) -> str:
    return f"did not answer ({error.strerror or error})"
