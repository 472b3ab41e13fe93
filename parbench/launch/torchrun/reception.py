"""Node 0's side of the handshake with callers: all at the same time, so that none delays another or a trial.

A caller is a stranger until it proves that it has the secret. At most `MAX_STRANGERS` strangers are connected, each
for a few seconds. If more call, the oldest one from the address with the most strangers is dropped. A node that is
dropped in such a flood calls again.
"""

import contextlib
import queue
import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from pydantic import ValidationError

from parbench.launch.torchrun.handshake import Handshake, new_number
from parbench.launch.torchrun.link import LateError, Link, LinkError
from parbench.launch.torchrun.messages import CallerProof, Challenge, LeaderProof

PROVING_S = 5.0
GREETING_S = 30.0
"""After the handshake a node has to inspect its devices and its code before it can greet."""
MAX_STRANGERS = 64
PROOF_BYTES = 1024
GREETING_BYTES = 2**20
PAUSE_S = 0.1


@dataclass(eq=False)
class Caller:
    """A caller that has not sent its greeting yet; `number` is that of its challenge, `until` its deadline."""

    link: Link
    host: str
    number: str = field(default_factory=new_number)
    is_stranger: bool = True
    until: float = field(default_factory=lambda: time.monotonic() + PROVING_S)


class Reception:
    """Challenges callers in its own thread, and queues the greetings of those that have the secret.

    `failures` counts callers with another secret, the last of them at the address `failure_host`.
    """

    def __init__(self, listener: socket.socket, secret: bytes) -> None:
        self._listener, self._secret = listener, secret
        self._callers: list[Caller] = []
        self._greetings: queue.SimpleQueue[tuple[Link, bytes]] = queue.SimpleQueue()
        self.failures = 0
        self.failure_host = ""
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        listener.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="reception", daemon=True)
        self._thread.start()

    def next(self, timeout_s: float) -> tuple[Link, bytes] | None:
        """The link to the next node after its handshake, and its greeting; None if none comes in time."""
        try:
            return self._greetings.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None

    @property
    def is_busy(self) -> bool:
        """Whether a node is about to greet after its handshake. Strangers do not count."""
        return any(not caller.is_stranger for caller in list(self._callers))

    def close(self) -> None:
        """Drops all callers, and stops listening."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._listener.close()
        while greeting := self.next(0.0):
            greeting[0].close()

    def _serve(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(self._next_deadline_s()):
                if key.data is None:
                    self._accept()
                else:
                    self._receive(key.data)
            now = time.monotonic()
            for caller in [each for each in self._callers if each.until <= now]:
                self._drop(caller)
        for caller in list(self._callers):
            self._drop(caller)
        self._selector.close()

    def _next_deadline_s(self) -> float | None:
        """The seconds until the next caller's deadline; None if there is no caller."""
        if not self._callers:
            return None
        return max(0.0, min(caller.until for caller in self._callers) - time.monotonic())

    def _accept(self) -> None:
        """Accepts and challenges a new caller."""
        strangers = [caller for caller in self._callers if caller.is_stranger]
        if len(strangers) >= MAX_STRANGERS:
            self._drop(choose_to_drop(strangers))
        try:
            connection, address = self._listener.accept()
        except BlockingIOError:  # the caller has gone again
            return
        except OSError:  # too many open files, some of which may be closed soon
            time.sleep(PAUSE_S)
            return
        caller = Caller(Link(connection), str(address[0]))
        try:
            caller.link.send(Challenge(number=caller.number))
        except LinkError:
            caller.link.close()
            return
        self._callers.append(caller)
        self._selector.register(caller.link, selectors.EVENT_READ, caller)

    def _receive(self, caller: Caller) -> None:
        """Handles what a caller has sent so far."""
        if caller not in self._callers:  # dropped in this same iteration
            return
        try:
            if caller.is_stranger:
                self._verify(caller, caller.link.receive(0.0, PROOF_BYTES))
            greeting = caller.link.receive(0.0, GREETING_BYTES)
        except LateError:
            return
        except LinkError:
            self._drop(caller)
            return
        self._selector.unregister(caller.link)
        self._greetings.put((caller.link, greeting))
        self._callers.remove(caller)

    def _verify(self, caller: Caller, message: bytes) -> None:
        """Checks a caller's proof and sends node 0's. Raises `LinkError` if the caller does not have the secret."""
        try:
            proof = CallerProof.model_validate_json(message)
        except ValidationError:
            raise LinkError("sent no proof") from None
        handshake = Handshake(self._secret, caller.number, proof.number)
        if not handshake.verify(proof.mac, "follower"):
            self.failures, self.failure_host = self.failures + 1, caller.host
            caller.link.send(LeaderProof(mac=None))
            raise LinkError("has another secret")
        caller.until = time.monotonic() + GREETING_S
        caller.is_stranger = False  # before the reply, so that `is_busy` is true once the caller can greet
        caller.link.send(LeaderProof(mac=handshake.mac("leader")))
        caller.link.seal(handshake.seal("leader"))

    def _drop(self, caller: Caller) -> None:
        self._callers.remove(caller)
        self._selector.unregister(caller.link)
        caller.link.close()


def choose_to_drop(strangers: list[Caller]) -> Caller:
    """The oldest stranger from the address with the most of them: a flood from one address drops only itself."""
    (host, _), *_ = Counter(caller.host for caller in strangers).most_common(1)
    return next(caller for caller in strangers if caller.host == host)
