"""A node that follows: it takes part in the trials of a campaign that node 0 leads, and stores no results."""

import tempfile
import time
from multiprocessing import connection
from pathlib import Path

from parbench.errors import LostNodeError, UsageError
from parbench.launch.base import Campaign, Follower
from parbench.launch.fork_server import ForkServer
from parbench.launch.node import network_variables
from parbench.launch.secret import VARIABLE
from parbench.launch.torchrun.agent import Agent
from parbench.launch.torchrun.greeting import greet
from parbench.launch.torchrun.handshake import SecretError, authenticate
from parbench.launch.torchrun.link import RETRY_S, Link, LinkError, connect, endpoint
from parbench.launch.torchrun.messages import Order, Over, TrialReport, Welcome
from parbench.launch.trial_folder import prepare_folder

MARGIN_S = 5.0
"""How much longer than node 0 this node waits for the rendezvous and the deadline, which node 0 decides on."""
RECONNECTING_S = 3.0
"""How long this node tries to reach node 0 again after node 0 has closed the link."""


class NodeFollower(Follower):
    """Node number `node`; node 0 listens at `host` and `port`, and has the same `secret`."""

    def __init__(self, forks: ForkServer, node: int, host: str, port: int, timeout_s: float, secret: bytes) -> None:
        self._forks = forks
        self._node = node
        self._where = (host, port)
        self._timeout_s = timeout_s
        self._secret = secret

    def follow(self, campaign: Campaign) -> None:
        """Takes part until node 0 ends the campaign; reconnects if the connection breaks.

        Raises `UsageError` if node 0 cannot be reached or refuses this node, `LostNodeError` if node 0 is gone.
        """
        # Importing torch takes long, and trials must not wait for it. So this comes first, but only after a check
        # that node 0 is there and has the same secret.
        self._reach(self._timeout_s).close()
        self._forks.ready()
        link = self._join(campaign, self._timeout_s, self._timeout_s + MARGIN_S)
        while True:
            try:
                self._serve(link, campaign)
            except LinkError as error:
                broken = error
            else:
                return
            finally:
                link.close()
            try:
                # If node 0 has hung up, it is gone, or it lost this node for a moment only. Node 0 admits nodes between
                # two trials, and a trial on other nodes may take long, so the wait for its reply has no limit: a dead
                # link raises an error.
                link = self._join(campaign, RECONNECTING_S if broken.hung_up else self._timeout_s, None)
            except UsageError:
                raise LostNodeError(f"node 0 {broken} before the campaign was over, and is gone") from None

    def _reach(self, patience_s: float) -> Link:
        """A link to node 0, after the handshake.

        Retries for `patience_s` seconds: node 0 may start later, or drop this caller in favour of newer ones.
        """
        place, deadline = endpoint(*self._where), time.monotonic() + patience_s
        while True:
            try:
                link = connect(*self._where, deadline - time.monotonic())
            except LinkError as error:
                raise UsageError(
                    f"the rendezvous {place} cannot be reached within {patience_s:.0f} s: {error}; "
                    "is node 0 running there, with the same --rendezvous?"
                ) from None
            try:
                authenticate(link, self._secret, self._timeout_s)
            except SecretError as error:
                link.close()
                raise UsageError(
                    f"the rendezvous {place} {error}; give all nodes the same --secret-file or {VARIABLE}"
                ) from None
            except LinkError as error:
                link.close()
                if time.monotonic() + RETRY_S >= deadline:
                    raise self._not_node_0(error) from None
            else:
                return link
            time.sleep(RETRY_S)

    def _join(self, campaign: Campaign, patience_s: float, answer_s: float | None) -> Link:
        link = self._reach(patience_s)
        try:
            link.send(greet(campaign, self._node, link.address))
            refusal = link.expect(Welcome, answer_s).refusal
        except LinkError as error:
            link.close()
            raise self._not_node_0(error) from None
        if refusal:
            link.close()
            raise UsageError(refusal)
        return link

    def _not_node_0(self, error: LinkError) -> UsageError:
        place = endpoint(*self._where)
        return UsageError(f"the rendezvous {place} is not node 0 of parbench: it {error}; check --rendezvous")

    def _serve(self, link: Link, campaign: Campaign) -> None:
        """Takes part in one trial after another. Raises `LinkError` if the link breaks."""
        while True:
            message = link.message()
            if isinstance(message, Over):
                if message.reason:
                    raise LostNodeError(f"node 0 has ended the campaign: {message.reason}")
                return
            if isinstance(message, Order):
                link.send(self._take_part(link, message, campaign))

    def _take_part(self, link: Link, order: Order, campaign: Campaign) -> TrialReport:
        """Runs this node's ranks of a trial, until they end, node 0 sends a message or is lost, or the time is over."""
        with tempfile.TemporaryDirectory(prefix=f"parbench-node{self._node}-") as scratch:
            folder = Path(scratch)
            prepare_folder(folder, campaign.localize(order.assignment))
            agent = Agent(self._forks, folder, order, self._node, network_variables(link.address))
            try:
                # Any message of node 0, and the loss of its link, ends this trial.
                connection.wait([agent.fileno(), link.fileno()], order.deadline_s + MARGIN_S)
            finally:
                report = agent.report()
            return report
