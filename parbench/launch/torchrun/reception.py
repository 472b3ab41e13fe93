"""Where node 0 hears who calls: all callers side by side, so that none holds up another, nor a trial.

A caller is a stranger until it has proven that it has the secret. There is room for so many strangers, each for a few
seconds; where more call, the one goes that has been there longest, of the address from which most have called. A node
that has to go because strangers crowd in calls again.
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

from parbench.launch.torchrun.link import LateError, Link, LinkError
from parbench.launch.torchrun.messages import Answer, Challenge, Proof
from parbench.launch.torchrun.proof import Exchange, new_number

PROVING_S = 5.0


GREETING_S = 30.0
"""A node that has proven itself still has to look at what it has: its devices, its commit."""


MAX_STRANGERS = 64


PROOF_BYTES = 1024


GREETING_BYTES = 2**20


PAUSE_S = 0.1


@dataclass(eq=False)
class Caller:
    """Somebody who has not greeted yet; `number` is what they are challenged by, `until` when they must be through."""

    link: Link
    host: str
    number: str = field(default_factory=new_number)
    is_stranger: bool = True
    until: float = field(default_factory=lambda: time.monotonic() + PROVING_S)


class Reception:
    """Challenges callers in a thread of its own, and keeps the greetings of those that have the secret.

    `failures` counts who had another one, the last of them at `failure_host`.
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
        """The next node that has proven itself, and its greeting; None where none comes."""
        try:
            return self._greetings.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None

    @property
    def is_busy(self) -> bool:
        """Whether a node that has proven itself is about to greet. Nobody waits for strangers."""
        return any(not caller.is_stranger for caller in list(self._callers))

    def close(self) -> None:
        """Lets go of all callers, and hears no more of them."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread
        self._thread.join()
        self._listener.close()
        while greeting := self.next(0.0):
            greeting[0].close()

    def _serve(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(self._patience_s()):
                if key.data is None:
                    self._receive()
                else:
                    self._hear(key.data)
            now = time.monotonic()
            for caller in [each for each in self._callers if each.until <= now]:
                self._drop(caller)
        for caller in list(self._callers):
            self._drop(caller)
        self._selector.close()

    def _patience_s(self) -> float | None:
        """For how long there is nothing to do unless somebody speaks."""
        if not self._callers:
            return None
        return max(0.0, min(caller.until for caller in self._callers) - time.monotonic())

    def _receive(self) -> None:
        """Challenges somebody new."""
        strangers = [caller for caller in self._callers if caller.is_stranger]
        if len(strangers) >= MAX_STRANGERS:
            self._drop(of_the_crowd(strangers))
        try:
            connection, address = self._listener.accept()
        except BlockingIOError:  # they have gone again
            return
        except OSError:  # there are too many open files, of which some may be closed in a moment
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

    def _hear(self, caller: Caller) -> None:
        """Goes on with a caller as far as they have spoken."""
        if caller not in self._callers:  # dropped in this same turn
            return
        try:
            if caller.is_stranger:
                self._examine(caller, caller.link.receive(0.0, PROOF_BYTES))
            greeting = caller.link.receive(0.0, GREETING_BYTES)
        except LateError:
            return
        except LinkError:
            self._drop(caller)
            return
        self._selector.unregister(caller.link)
        self._greetings.put((caller.link, greeting))
        self._callers.remove(caller)

    def _examine(self, caller: Caller, said: bytes) -> None:
        """Answers a proof. Raises `LinkError` where it is none."""
        try:
            proof = Proof.model_validate_json(said)
        except ValidationError:
            raise LinkError("sent no proof") from None
        exchange = Exchange(self._secret, caller.number, proof.number)
        if not exchange.proves(proof.mac, "follower"):
            self.failures, self.failure_host = self.failures + 1, caller.host
            caller.link.send(Answer(mac=None))
            raise LinkError("has another secret")
        caller.until = time.monotonic() + GREETING_S
        caller.is_stranger = False  # before they know, so that one that greets at once is not missed
        caller.link.send(Answer(mac=exchange.proof("leader")))
        caller.link.seal(exchange.seal("leader"))

    def _drop(self, caller: Caller) -> None:
        self._callers.remove(caller)
        self._selector.unregister(caller.link)
        caller.link.close()


def of_the_crowd(strangers: list[Caller]) -> Caller:
    """Who has been there longest, of those at the address that most are at: a flood only drives out itself."""
    (host, _), *_ = Counter(caller.host for caller in strangers).most_common(1)
    return next(caller for caller in strangers if caller.host == host)
