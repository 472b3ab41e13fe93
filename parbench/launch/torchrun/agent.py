"""torch's elastic agent for one trial on one node, in a process of its own that can be killed at any time.

The agent is forked from the fork server, and its ranks from the agent: so it runs no operator and no Python thread.
"""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path
from typing import Any

from parbench.errors import LaunchError
from parbench.launch.fork_server import CANNOT_FORK, ForkServer
from parbench.launch.rank_process import (
    TERMINATION_GRACE_S,
    detach,
    flush_log,
    random_memory_layout,
    signal_session,
)
from parbench.launch.torchrun.link import endpoint
from parbench.launch.torchrun.messages import Order, TrialReport
from parbench.launch.trial_folder import log_end, read_ranks
from parbench.records.trial import RankRecord

PRELOAD = "torch.distributed.launcher.api"
MONITOR_INTERVAL_S = 0.05
FAILED_RANK_S = 0.5
"""How long a failed rank waits before it exits."""
AGENTS_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""The signals that the agent handles; its ranks inherit the handlers and must reset them."""


class Agent:
    """A node's part in a trial. It starts at once; `fileno` becomes readable when it ends; `report` ends it."""

    def __init__(
        self,
        forks: ForkServer,
        folder: Path,
        order: Order,
        node: int,
        network: Mapping[str, str],
        listener: socket.socket | None = None,
    ) -> None:
        self._forks, self._folder, self._order, self._node = forks, folder, order, node
        self._reader, writer = forks.context.Pipe(duplex=False)
        self._process = forks.context.Process(
            target=run_agent, args=(folder, order, node, dict(network), listener, writer, forks.pid)
        )
        try:
            self._process.start()
        except (EOFError, OSError):
            raise LaunchError(f"torch's agent could not be started on node {node}: {CANNOT_FORK}") from None
        forks.guard(self._process.pid)
        writer.close()

    def fileno(self) -> int:
        """A file descriptor that is readable once all ranks of this node have ended."""
        return self._reader.fileno()

    def report(self) -> TrialReport:
        """Ends the ranks that still run, which write their stacks into their logs, and reports on all of this node."""
        result = self._read_result()
        own = ranks_of(self._node, self._order.processes)
        self._end(wait_s=0.0 if result else TERMINATION_GRACE_S)
        return TrialReport(
            run_id=self._order.run_id,
            exit_codes={rank: result.get("exit_codes", {}).get(str(rank)) for rank in own},
            ranks={record.rank: record for record in self._records()},
            logs={rank: log_end(self._folder, rank) for rank in own},
            reason=result.get("reason"),
        )

    def _records(self) -> list[RankRecord]:
        own = ranks_of(self._node, self._order.processes)
        return [record for record in read_ranks(self._folder, own.stop) if record.rank in own]

    def _read_result(self) -> dict[str, Any]:
        """The result that the agent sent; empty if it still runs."""
        if not self._reader.poll():
            return {}
        try:
            result: dict[str, Any] = json.loads(self._reader.recv_bytes())
        except EOFError:
            self._process.join()
            return {"reason": f"torch's agent on node {self._node} ended with exit code {self._process.exitcode}"}
        return result

    def _end(self, wait_s: float) -> None:
        """Kills the ranks, their children and the agent; `wait_s` seconds before, aborts the ranks for their stacks."""
        pids = [record.pid for record in self._records() if record.pid > 1]
        if wait_s:
            _signal_groups(pids, signal.SIGABRT)
            connection.wait([self._process.sentinel], wait_s)
        signal_session(self._process, signal.SIGKILL)
        _signal_groups(pids, signal.SIGKILL)
        self._process.join()
        self._forks.unguard(self._process.pid)
        self._forks.sweep()
        self._process.close()
        self._reader.close()


def ranks_of(node: int, processes: int) -> range:
    """The ranks on a node, if each node has `processes` of them."""
    return range(node * processes, (node + 1) * processes)


def run_agent(
    folder: Path,
    order: Order,
    node: int,
    network: dict[str, str],
    listener: socket.socket | None,
    writer: "connection.Connection[Any, Any]",
    parent: int,
) -> None:
    """Runs an agent in its new process: one elastic launch without restarts; ranks are numbered by node."""
    detach(folder / f"agent{node}.log", parent)
    os.environ.update(TORCH_ELASTIC_SHUTDOWN_TIMEOUT=str(int(TERMINATION_GRACE_S)), TORCH_ELASTIC_WORKER_IDENTICAL="1")

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=order.assignment.nodes,
        max_nodes=order.assignment.nodes,
        nproc_per_node=order.processes,
        run_id=order.run_id,
        rdzv_backend="static",
        rdzv_endpoint=endpoint(order.address, order.port),
        rdzv_configs={"rank": node, "timeout": max(1, int(order.deadline_s))},
        max_restarts=0,
        monitor_interval=MONITOR_INTERVAL_S,
        start_method="fork",
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # each rank writes its own log
    )
    result: dict[str, Any] = {"exit_codes": dict.fromkeys(ranks_of(node, order.processes), 0)}
    try:
        store = _serve_store(listener, order) if listener else None
        elastic_launch(config, run_elastic_rank)(folder, network, os.getpid())
        del store
    except ChildFailedError as error:
        result = {"exit_codes": {rank: failure.exitcode for rank, failure in error.failures.items()}}
    except Exception as error:  # noqa: BLE001 - whatever torch raises is this trial's result
        result = {"reason": f"torch's agent on node {node} failed: {type(error).__name__}: {error}"}
    writer.send_bytes(json.dumps(result).encode())


def _serve_store(listener: socket.socket, order: Order) -> object:
    """The store that all agents and ranks connect to. Its socket is open already: nothing else can take its port."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store: object = TCPStore(
        order.address,
        order.port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=order.deadline_s),
        multi_tenant=True,
        master_listen_fd=listener.detach(),
    )
    return store


def run_elastic_rank(folder: Path, network: Mapping[str, str], agent: int) -> None:
    """Runs a rank in the process that the agent has started for it, with torchrun's variables."""
    detach(folder / f"rank{os.environ['RANK']}.log", agent)
    for number in AGENTS_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.environ.update(network)
    layout = random_memory_layout()

    from parbench.measure.worker import work

    code = work(folder)
    del layout
    flush_log()
    if code:
        # The agent reports only the rank that ended first. That must be a rank that was killed, if there is one, as
        # that has no error in its record.
        time.sleep(FAILED_RANK_S)
        os._exit(code)


def _signal_groups(groups: Iterable[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
