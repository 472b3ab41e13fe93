"""Node 0's side of a campaign on several nodes: it waits for the others, and keeps a link to each."""

import ipaddress
import time
from typing import NoReturn

from pydantic import BaseModel

from parbench.errors import UsageError
from parbench.launch.torchrun.greeting import add_differences, find_mismatch, find_version_mismatch, parse_greeting
from parbench.launch.torchrun.link import Link, LinkError
from parbench.launch.torchrun.messages import NodeGreeting, Over, TrialReport, Welcome
from parbench.launch.torchrun.reception import Reception
from parbench.records.node import NodeRecord

BETWEEN_TRIALS_S = 5.0
"""How long a trial waits for a node that has come back and is about to greet."""
PAUSE_S = 0.1


class Leader:
    """The nodes that follow, by node rank. A lost node may come back: it is admitted between two trials."""

    def __init__(self, reception: Reception, ours: NodeGreeting) -> None:
        self._reception = reception
        self._ours = ours
        self._sessions: dict[int, str] = {}
        self._losses: dict[int, str] = {}
        self._gathered = False
        self.links: dict[int, Link] = {}
        self.records: dict[int, NodeRecord] = {0: ours.record}
        self.address = ours.record.address

    def gather(self, timeout_s: float) -> None:
        """Waits for all nodes. Raises `UsageError`, on all nodes, if they do not agree or one is missing."""
        deadline = time.monotonic() + timeout_s
        while missing := [node for node in range(self._ours.nodes) if node not in self.records]:
            left = deadline - time.monotonic()
            if left <= 0 or not self._admit(left):
                present = ", ".join(f"{node} ({record.host})" for node, record in sorted(self.records.items()))
                self.refuse(
                    f"node rank {', '.join(map(str, missing))} of {self._ours.nodes} did not come to the rendezvous "
                    f"within {timeout_s:.0f} s; present are {present}{self._hint()}"
                )
        self.broadcast(Welcome())
        self._gathered = True

    def refuse(self, reason: str) -> NoReturn:
        """Tells all nodes why there will be no campaign, and raises the reason as `UsageError`."""
        self.broadcast(Welcome(refusal=reason))
        raise UsageError(reason)

    def broadcast(self, message: BaseModel) -> None:
        """Sends a message to all connected nodes. A node that cannot be reached is lost."""
        for node in list(self.links):
            self.send(node, message)

    def send(self, node: int, message: BaseModel) -> None:
        """Sends a message to one node. If it cannot be reached, it is lost."""
        try:
            self.links[node].send(message)
        except LinkError as error:
            self.lose(node, str(error))

    def receive_report(self, node: int, run_id: str, timeout_s: float | None = None) -> TrialReport | None:
        """A node's report on a trial; None if the node is lost, or the report is on an earlier trial."""
        try:
            report = self.links[node].expect(TrialReport, timeout_s)
        except LinkError as error:
            self.lose(node, str(error))
            return None
        return report if report.run_id == run_id else None

    def lose(self, node: int, why: str) -> None:
        """Drops the link to a node, which may come back later."""
        self.links.pop(node).close()
        self._losses[node] = why

    def find_losses(self, nodes: int) -> str | None:
        """Which of the first `nodes` nodes are lost, and why. Nodes that have come back are admitted first."""
        until = time.monotonic() + BETWEEN_TRIALS_S
        while True:
            is_busy = self._reception.is_busy
            while self._admit(0.0):
                pass
            for node in list(self.links):
                self._check(node)
            gone = [node for node in range(1, nodes) if node not in self.links]
            if not (gone and is_busy and time.monotonic() < until):
                return "; ".join(self.explain_loss(node) for node in gone) or None
            self._admit(PAUSE_S)

    def explain_loss(self, node: int) -> str:
        """Which node was lost, and why, as a sentence."""
        return f"node {node} ({self.records[node].host}) was lost: {self._losses.get(node, 'it did not answer')}"

    def close(self, reason: str | None) -> None:
        """Tells the others that the campaign is over, and why if it was cut short."""
        self.broadcast(Over(reason=reason))
        for link in self.links.values():
            link.close()
        self._reception.close()

    def _check(self, node: int) -> None:
        """Loses a node that has closed its link."""
        if self.links[node].hung_up:
            self.lose(node, "hung up")

    def _hint(self) -> str:
        """Likely causes of a missing node: secrets differ, or node 0's name resolves to loopback."""
        hints = []
        if self._reception.failures:
            hints.append(
                f". Callers with another secret: {self._reception.failures}, the last of them at "
                f"{self._reception.failure_host}; give every node the same secret"
            )
        if ipaddress.ip_address(self.address).is_loopback:
            hints.append(
                f". Node 0 listens at {self.address}, which only this host can reach: use another of its addresses"
            )
        return "".join(hints)

    def _admit(self, timeout_s: float) -> bool:
        """Admits the next node that has sent its greeting. False if none does within the time."""
        arrival = self._reception.next(timeout_s)
        if arrival is None:
            return False
        link, greeting = arrival
        try:
            theirs = self._examine(link, greeting)
        except LinkError:
            # The caller has gone, or is not a node of this parbench: the next one may be.
            link.close()
            return True
        if theirs is not None:
            self._losses.pop(theirs.node, None)
            if theirs.node in self.links:
                self.links[theirs.node].close()
            self.links[theirs.node] = link
            self._sessions[theirs.node] = theirs.session
            self.records[theirs.node] = add_differences(self._ours, theirs)
        return True

    def _examine(self, link: Link, raw: bytes) -> NodeGreeting | None:
        """The greeting of a node that can take part; None for a node that was refused."""
        reason, theirs = find_version_mismatch(self._ours, raw), None
        if reason is None:
            theirs = parse_greeting(raw)
            reason = find_mismatch(self._ours, theirs)
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

    def _is_taken(self, theirs: NodeGreeting) -> bool:
        if theirs.node in self.links:
            self._check(theirs.node)
        return theirs.node in self.links and self._sessions[theirs.node] != theirs.session

    def _turn_away(self, link: Link, reason: str) -> None:
        link.send(Welcome(refusal=reason))
        link.close()
