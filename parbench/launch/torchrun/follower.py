"""A node that follows: it takes part in the trials of a campaign that node 0 leads, and keeps nothing."""

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
from parbench.launch.torchrun.link import RETRY_S, Link, LinkError, connect, endpoint
from parbench.launch.torchrun.messages import Order, Over, Report, Welcome
from parbench.launch.torchrun.proof import SecretError, prove
from parbench.launch.trial_folder import prepare_folder

MARGIN_S = 5.0


HANGING_UP_S = 3.0


class NodeFollower(Follower):
    """Node number `node`, which finds node 0 at `host` and `port`, and has the same `secret`."""

    def __init__(self, forks: ForkServer, node: int, host: str, port: int, timeout_s: float, secret: bytes) -> None:
        self._forks = forks
        self._node = node
        self._where = (host, port)
        self._timeout_s = timeout_s
        self._secret = secret

    def follow(self, campaign: Campaign) -> None:
        """Takes part until node 0 says that it is over; a connection that broke is made again."""
        # Is it there at all, with the same secret? Only then is it worth while to import torch, which no trial is to
        # wait for.
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
                # Who has hung up is gone, or has lost sight of this node for a moment. Node 0 lets nodes in between two
                # trials, and one on other nodes may take long: while the link is alive, so is node 0.
                link = self._join(campaign, HANGING_UP_S if broken.hung_up else self._timeout_s, None)
            except UsageError:
                raise LostNodeError(f"node 0 {broken} before the campaign was over, and is gone") from None

    def _reach(self, patience_s: float) -> Link:
        """A link to node 0, proven on both sides.

        Tried again while there is time: node 0 may start later, or have no room in a crowd of strangers.
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
                prove(link, self._secret, self._timeout_s)
            except SecretError as error:
                link.close()
                raise UsageError(
                    f"the rendezvous {place} {error}; give all nodes the same --secret-file or {VARIABLE}"
                ) from None
            except LinkError as error:
                link.close()
                if time.monotonic() + RETRY_S >= deadline:
                    raise self._stranger(error) from None
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
            raise self._stranger(error) from None
        if refusal:
            link.close()
            raise UsageError(refusal)
        return link

    def _stranger(self, error: LinkError) -> UsageError:
        place = endpoint(*self._where)
        return UsageError(f"the rendezvous {place} does not answer as node 0 of parbench does: it {error}")

    def _serve(self, link: Link, campaign: Campaign) -> None:
        """Takes part in trial after trial. `LinkError` where the link breaks."""
        while True:
            message = link.message()
            if isinstance(message, Over):
                if message.reason:
                    raise LostNodeError(f"node 0 has ended the campaign: {message.reason}")
                return
            if isinstance(message, Order):
                link.send(self._take_part(link, message, campaign))

    def _take_part(self, link: Link, order: Order, campaign: Campaign) -> Report:
        """Runs this node's ranks of a trial until they have ended, or node 0 says so, or the link or time runs out."""
        with tempfile.TemporaryDirectory(prefix=f"parbench-node{self._node}-") as scratch:
            folder = Path(scratch)
            prepare_folder(folder, campaign.here(order.assignment))
            agent = Agent(self._forks, folder, order, self._node, network_variables(link.address))
            try:
                # Whatever node 0 has to say now, also that it is gone, means the end of this trial.
                connection.wait([agent.fileno(), link.fileno()], order.deadline_s + MARGIN_S)
            finally:
                report = agent.report()
            return report
