"""Node 0's side of a campaign on several nodes: it gathers the others, keeps their links, and has them take part."""

import ipaddress
import time
from typing import NoReturn

from pydantic import BaseModel

from parbench.errors import UsageError
from parbench.launch.torchrun.greeting import disagreement, noted, parse_greeting, version_mismatch
from parbench.launch.torchrun.link import Link, LinkError
from parbench.launch.torchrun.messages import Greeting, Over, Report, Welcome
from parbench.launch.torchrun.reception import Reception
from parbench.records.node import NodeRecord

BETWEEN_TRIALS_S = 5.0
"""For how long a trial may wait for a node that is back, and is about to greet."""


PAUSE_S = 0.1


class Leader:
    """The nodes that follow, by rank. One that is lost may come back: it is admitted between two trials."""

    def __init__(self, reception: Reception, ours: Greeting) -> None:
        self._reception = reception
        self._ours = ours
        self._sessions: dict[int, str] = {}
        self._losses: dict[int, str] = {}
        self._gathered = False
        self.links: dict[int, Link] = {}
        self.records: dict[int, NodeRecord] = {0: ours.record}
        self.address = ours.record.address

    def gather(self, timeout_s: float) -> None:
        """Waits for all nodes. Raises `UsageError`, there as here, where they do not agree or one is missing."""
        deadline = time.monotonic() + timeout_s
        while missing := [node for node in range(self._ours.nodes) if node not in self.records]:
            left = deadline - time.monotonic()
            if left <= 0 or not self._admit(left):
                here = ", ".join(f"{node} ({record.host})" for node, record in sorted(self.records.items()))
                self.refuse(
                    f"node rank {', '.join(map(str, missing))} of {self._ours.nodes} did not come to the rendezvous "
                    f"within {timeout_s:.0f} s; there are {here}{self._hint()}"
                )
        self.tell(Welcome())
        self._gathered = True

    def refuse(self, reason: str) -> NoReturn:
        """Tells everybody why there will be no campaign."""
        self.tell(Welcome(refusal=reason))
        raise UsageError(reason)

    def tell(self, message: BaseModel) -> None:
        """Says the same to all that are there; one that is gone is lost."""
        for node in list(self.links):
            self.send(node, message)

    def send(self, node: int, message: BaseModel) -> None:
        """Says something to one node; if it is gone, it is lost."""
        try:
            self.links[node].send(message)
        except LinkError as error:
            self.lose(node, str(error))

    def report(self, node: int, run_id: str, timeout_s: float | None = None) -> Report | None:
        """What a node says of a trial; None where it is lost, or still has something to say of an earlier one."""
        try:
            told = self.links[node].expect(Report, timeout_s)
        except LinkError as error:
            self.lose(node, str(error))
            return None
        return told if told.run_id == run_id else None

    def lose(self, node: int, why: str) -> None:
        """Gives a node up until it comes back."""
        self.links.pop(node).close()
        self._losses[node] = why

    def lost(self, nodes: int) -> str | None:
        """Which of the first `nodes` nodes are lost, and why; those that have come back are admitted first."""
        until = time.monotonic() + BETWEEN_TRIALS_S
        while True:
            is_busy = self._reception.is_busy
            while self._admit(0.0):
                pass
            for node in list(self.links):
                self._notice(node)
            gone = [node for node in range(1, nodes) if node not in self.links]
            if not (gone and is_busy and time.monotonic() < until):
                return "; ".join(self.told(node) for node in gone) or None
            self._admit(PAUSE_S)

    def told(self, node: int) -> str:
        """A sentence on a node that is lost."""
        return f"node {node} ({self.records[node].host}) was lost: {self._losses.get(node, 'it did not answer')}"

    def close(self, reason: str | None) -> None:
        """Lets the others go."""
        self.tell(Over(reason=reason))
        for link in self.links.values():
            link.close()
        self._reception.close()

    def _notice(self, node: int) -> None:
        """Loses a node that has ended since it was last heard of."""
        if self.links[node].hung_up:
            self.lose(node, "hung up")

    def _hint(self) -> str:
        """What may be wrong: secrets that differ, or a host's own name, which often leads nowhere else."""
        hints = []
        if self._reception.failures:
            hints.append(
                f". Of those that called, {self._reception.failures} had another secret, the last of them at "
                f"{self._reception.failure_host}: give every node the same"
            )
        if ipaddress.ip_address(self.address).is_loopback:
            hints.append(
                f". Node 0 waits at {self.address}, which only this host can reach: give another address of it"
            )
        return "".join(hints)

    def _admit(self, timeout_s: float) -> bool:
        """Lets in whoever has greeted next; False where nobody does."""
        arrival = self._reception.next(timeout_s)
        if arrival is None:
            return False
        link, greeting = arrival
        try:
            theirs = self._examined(link, greeting)
        except LinkError:
            # No node of this parbench, or one that is gone already: the next one may be right.
            link.close()
            return True
        if theirs is not None:
            self._losses.pop(theirs.node, None)
            if theirs.node in self.links:
                self.links[theirs.node].close()
            self.links[theirs.node] = link
            self._sessions[theirs.node] = theirs.session
            self.records[theirs.node] = noted(self._ours, theirs)
        return True

    def _examined(self, link: Link, raw: bytes) -> Greeting | None:
        """The greeting of a node that can take part; None of one that was told why it cannot."""
        reason, theirs = version_mismatch(self._ours, raw), None
        if reason is None:
            theirs = parse_greeting(raw)
            reason = disagreement(self._ours, theirs)
        if reason is None and theirs is not None and self._is_taken(theirs):
            reason = f"node rank {theirs.node} is taken by {self.records[theirs.node].host}; give every node its own"
            self._turn_away(link, reason)
            return None
        if reason is None:
            if self._gathered:
                link.send(Welcome())
            return theirs
        self._turn_away(link, reason)
        if not self._gathered:
            self.refuse(reason)
        return None

    def _is_taken(self, theirs: Greeting) -> bool:
        if theirs.node in self.links:
            self._notice(theirs.node)
        return theirs.node in self.links and self._sessions[theirs.node] != theirs.session

    def _turn_away(self, link: Link, reason: str) -> None:
        link.send(Welcome(refusal=reason))
        link.close()
