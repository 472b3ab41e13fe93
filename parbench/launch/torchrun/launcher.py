"""The torchrun launcher: the user runs one command on every node, and torch's elastic agents start each trial."""

import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from parbench.errors import UsageError
from parbench.launch.base import Campaign, Launcher, Outcome, Site
from parbench.launch.fork_server import ForkServer
from parbench.launch.node import network_variables
from parbench.launch.rank_process import LOOPBACK
from parbench.launch.secret import read_secret, require_loopback
from parbench.launch.torchrun.agent import PRELOAD, Agent
from parbench.launch.torchrun.follower import NodeFollower
from parbench.launch.torchrun.greeting import greet
from parbench.launch.torchrun.leader import Leader
from parbench.launch.torchrun.link import endpoint
from parbench.launch.torchrun.messages import Order
from parbench.launch.torchrun.parts import Parts
from parbench.launch.torchrun.reception import Reception
from parbench.records.assignment import Assignment
from parbench.records.node import NodeRecord
from parbench.system.devices import Machine

RENDEZVOUS_TIMEOUT_S = 120.0
LOOPBACK_VARIABLES = {"GLOO_SOCKET_IFNAME": "lo"}


class TorchrunLauncher(Launcher):
    """Starts ranks on one or several nodes. Every node runs the same command, and node 0 leads."""

    name = "torchrun"

    def __init__(
        self, nodes: int, node: int, where: tuple[str, int] | None, timeout_s: float, secret: bytes | None
    ) -> None:
        self._nodes = nodes
        self._where = where
        self._timeout_s = timeout_s
        self._secret = secret
        self._forks = ForkServer(PRELOAD)
        self._leader: Leader | None = None
        if where is not None and node > 0:
            self.follower = NodeFollower(self._forks, node, *where, timeout_s, secret or b"")

    @classmethod
    def detected(cls) -> str | None:
        """Whether there are the variables by which schedulers such as Kubeflow's set torchrun's options."""
        return "PET_NNODES is set" if "PET_NNODES" in os.environ else None

    @classmethod
    def at(cls, site: Site) -> Self:
        """The launcher of this node, from the options or torchrun's variables. Raises `UsageError` if they clash."""
        site = _complete(site)
        nodes, node = site.nodes or 1, site.node_rank or 0
        timeout_s = site.rendezvous_timeout or RENDEZVOUS_TIMEOUT_S
        if site.nodes is None and site.options:
            raise UsageError(f"{', '.join(site.options)}: add --nodes, the number of nodes that run this command")
        if nodes > 1 and (site.node_rank is None or site.rendezvous is None):
            raise UsageError(
                f"--nodes {nodes}: every node also needs --node-rank, from 0 to {nodes - 1}, "
                "and --rendezvous HOST:PORT, an address of node 0"
            )
        if node >= nodes:
            raise UsageError(f"--node-rank {node}: with --nodes {nodes}, ranks are 0 to {nodes - 1}")
        where = _parse(site.rendezvous) if site.rendezvous and nodes > 1 else None
        return cls(nodes, node, where, timeout_s, read_secret(site.secret_file))

    def machine(self) -> Machine:
        """This machine's devices on each of the nodes, which must be alike."""
        return replace(super().machine(), nodes=self._nodes, granted=self._nodes > 1)

    def start(self) -> None:
        """Starts importing torch. Raises `UsageError` if the rendezvous is not on loopback and has no secret."""
        if self._where and self._secret is None:
            require_loopback(self._where[0])
        self._forks.start()

    @contextmanager
    def gathered(self, campaign: Campaign) -> Iterator[tuple[NodeRecord, ...]]:
        """Waits for the other nodes, and dismisses them after the block."""
        if self._where is None:
            yield ()
            return
        listener = _listener(*self._where)
        ours = greet(campaign, 0, listener.getsockname()[0])
        leader = Leader(Reception(listener, self._secret or b""), ours)
        reason: str | None = "it ended early"
        try:
            leader.gather(self._timeout_s)
            self._forks.ready()
            self._leader = leader
            yield tuple(leader.records[node] for node in sorted(leader.records))
            reason = None
        except BaseException as error:
            reason = str(error) or type(error).__name__
            raise
        finally:
            leader.close(reason)
            self._leader = None

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        """Runs the trial on the first nodes; node 0 alone watches the deadline."""
        self._forks.ready()
        started = time.monotonic()
        losses = self._leader.find_losses(nodes) if self._leader else None
        if losses:
            return Outcome(exit_codes=(None,) * processes, wall_s=time.monotonic() - started, reason=losses)
        address = self._leader.address if self._leader and nodes > 1 else LOOPBACK
        with socket.create_server((address, 0), family=_family(address), backlog=processes) as listener:
            order = Order(
                assignment=Assignment.model_validate_json((folder / "cell.json").read_bytes()),
                run_id=secrets.token_hex(8),
                address=address,
                port=listener.getsockname()[1],
                processes=processes // nodes,
                deadline_s=deadline_s,
            )
            return self._run(order, folder, listener, started)

    def close(self) -> None:
        """Ends ranks that still run here; other nodes end theirs when the connection to node 0 breaks."""
        self._forks.close()

    def _run(self, order: Order, folder: Path, listener: socket.socket, started: float) -> Outcome:
        several = order.assignment.nodes > 1
        for node in range(1, order.assignment.nodes):
            if self._leader:
                self._leader.send(node, order)
        network = network_variables(order.address) if several else LOOPBACK_VARIABLES
        parts = Parts(Agent(self._forks, folder, order, 0, network, listener), order, self._leader)
        timed_out = False
        try:
            timed_out = not parts.wait(started + order.deadline_s)
        finally:
            parts.end()
        return parts.outcome(folder, time.monotonic() - started, timed_out=timed_out)


def _complete(site: Site) -> Site:
    """The site; options that are not set come from torchrun's own variables, which schedulers set."""
    variables = os.environ
    nodes, rank = variables.get("PET_NNODES", "").rpartition(":")[2], variables.get("PET_NODE_RANK", "")
    host, port = variables.get("PET_MASTER_ADDR"), variables.get("PET_MASTER_PORT")
    where = variables.get("PET_RDZV_ENDPOINT") or (f"{host}:{port}" if host and port else None)
    return Site(
        nodes=site.nodes or (int(nodes) if nodes.isdecimal() else None),
        node_rank=int(rank) if site.node_rank is None and rank.isdecimal() else site.node_rank,
        rendezvous=site.rendezvous or where,
        rendezvous_timeout=site.rendezvous_timeout,
        secret_file=site.secret_file,
    )


def _parse(rendezvous: str) -> tuple[str, int]:
    host, _, port = rendezvous.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not _names_a_host(host, bare) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--rendezvous {rendezvous}: write it as HOST:PORT, such as 10.0.0.1:29400 or [fd00::1]:29400")
    if _is_any_address(bare):
        raise UsageError(f"--rendezvous {rendezvous}: {bare} is not the address of one host; use that of node 0")
    return bare, int(port)


def _names_a_host(host: str, bare: str) -> bool:
    """Whether this may be a host: addresses with colons need brackets, others must not have them."""
    try:
        bare.encode("idna")
    except UnicodeError:
        return False
    return bool(bare) and (host == f"[{bare}]" if ":" in bare else host == bare)


def _is_any_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        return False


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _listener(host: str, port: int) -> socket.socket:
    """The socket at which node 0 waits for the others. Raises `UsageError` if it cannot be opened."""
    where = endpoint(host, port)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except socket.gaierror as error:
        raise UsageError(f"--rendezvous {where}: the host {host} cannot be resolved: {error.strerror}") from None
    except OSError as error:
        raise UsageError(
            f"node 0 cannot listen at the rendezvous {where}: {error.strerror}; "
            "it must be an address of node 0 and a free port"
        ) from None
