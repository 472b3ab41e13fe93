"""The torchrun launcher: the same command on every node, and a fresh launch by torch's agents for every trial."""

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
from parbench.launch.rank_process import HOST
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
from parbench.system.devices import Machine, detect

RENDEZVOUS_TIMEOUT_S = 120.0


LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"}


class TorchrunLauncher(Launcher):
    """Starts ranks on several nodes, each of which runs this same command; node 0 leads."""

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
        """The variables in which schedulers, such as Kubeflow's, give torchrun its options."""
        return "PET_NNODES is set" if "PET_NNODES" in os.environ else None

    @classmethod
    def at(cls, site: Site) -> Self:
        """The launcher of one node, by the options or by torchrun's variables."""
        site = _completed(site)
        nodes, node = site.nodes or 1, site.node_rank or 0
        timeout_s = site.rendezvous_timeout or RENDEZVOUS_TIMEOUT_S
        if site.nodes is None and site.given:
            raise UsageError(f"{', '.join(site.given)}: say with --nodes how many nodes run this command")
        if nodes > 1 and (site.node_rank is None or site.rendezvous is None):
            raise UsageError(
                f"--nodes {nodes}: every node also needs --node-rank, from 0 to {nodes - 1}, "
                "and --rendezvous HOST:PORT, an address of node 0"
            )
        if node >= nodes:
            raise UsageError(f"--node-rank {node}: with --nodes {nodes}, ranks are 0 to {nodes - 1}")
        where = _parsed(site.rendezvous) if site.rendezvous and nodes > 1 else None
        return cls(nodes, node, where, timeout_s, read_secret(site.secret_file))

    def machine(self) -> Machine:
        """As many nodes like this one."""
        return replace(detect(), nodes=self._nodes, granted=self._nodes > 1)

    def start(self) -> None:
        """Begins importing torch. Raises `UsageError` where strangers could come to the rendezvous."""
        if self._where and self._secret is None:
            require_loopback(self._where[0])
        self._forks.start()

    @contextmanager
    def gathered(self, campaign: Campaign) -> Iterator[tuple[NodeRecord, ...]]:
        """Waits for the other nodes, and lets them go at the end."""
        if self._where is None:
            yield ()
            return
        listener = _listener(*self._where)
        ours = greet(campaign, 0, listener.getsockname()[0])
        leader = Leader(Reception(listener, self._secret or b""), ours)
        why: str | None = "it ended before its time"
        try:
            leader.gather(self._timeout_s)
            self._forks.ready()
            self._leader = leader
            yield tuple(leader.records[node] for node in sorted(leader.records))
            why = None
        except BaseException as error:
            why = str(error) or type(error).__name__
            raise
        finally:
            leader.close(why)
            self._leader = None

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        """Runs the trial on the first nodes, under a deadline that is node 0's alone."""
        self._forks.ready()
        started = time.monotonic()
        lost = self._leader.lost(nodes) if self._leader else None
        if lost:
            return Outcome(exit_codes=(None,) * processes, wall_s=time.monotonic() - started, reason=lost)
        address = self._leader.address if self._leader and nodes > 1 else HOST
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
        """Ends ranks that still run here; those of other nodes end when they hear nothing more of this one."""
        self._forks.close()

    def _run(self, order: Order, folder: Path, listener: socket.socket, started: float) -> Outcome:
        several = order.assignment.nodes > 1
        for node in range(1, order.assignment.nodes):
            if self._leader:
                self._leader.send(node, order)
        network = network_variables(order.address) if several else LOOPBACK
        parts = Parts(Agent(self._forks, folder, order, 0, network, listener), order, self._leader)
        timed_out = False
        try:
            timed_out = not parts.wait(started + order.deadline_s)
        finally:
            parts.end()
        return parts.outcome(folder, time.monotonic() - started, timed_out=timed_out)


def _completed(site: Site) -> Site:
    """The site with what a scheduler said in torchrun's own variables, where the command line says nothing."""
    said = os.environ
    nodes, rank = said.get("PET_NNODES", "").rpartition(":")[2], said.get("PET_NODE_RANK", "")
    host, port = said.get("PET_MASTER_ADDR"), said.get("PET_MASTER_PORT")
    where = said.get("PET_RDZV_ENDPOINT") or (f"{host}:{port}" if host and port else None)
    return Site(
        nodes=site.nodes or (int(nodes) if nodes.isdecimal() else None),
        node_rank=int(rank) if site.node_rank is None and rank.isdecimal() else site.node_rank,
        rendezvous=site.rendezvous or where,
        rendezvous_timeout=site.rendezvous_timeout,
        secret_file=site.secret_file,
    )


def _parsed(rendezvous: str) -> tuple[str, int]:
    host, _, port = rendezvous.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not _names_a_host(host, bare) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--rendezvous {rendezvous}: write it as HOST:PORT, such as 10.0.0.1:29400 or [fd00::1]:29400")
    if _is_any_address(bare):
        raise UsageError(f"--rendezvous {rendezvous}: {bare} is every host's address; name one that leads to node 0")
    return bare, int(port)


def _names_a_host(host: str, bare: str) -> bool:
    """Whether it may be a host, with brackets where they belong: around addresses with colons."""
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
    """The socket at which node 0 waits. Raises `UsageError` where it cannot."""
    where = endpoint(host, port)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except socket.gaierror as error:
        raise UsageError(f"--rendezvous {where}: {host} is no host that is known here: {error.strerror}") from None
    except OSError as error:
        raise UsageError(
            f"node 0 cannot wait at the rendezvous {where}: {error.strerror}; "
            "it must be an address of node 0, and a port that is free"
        ) from None
