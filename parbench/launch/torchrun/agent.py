"""torch's elastic agent for one trial on one node, in a process of its own that can be ended at any time.

It is forked from a server that has torch imported, and its ranks from it: it runs no operator, and no thread of Python.
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
    flush_log,
    random_memory_layout,
    signal_session,
    stand_alone,
)
from parbench.launch.torchrun.link import endpoint
from parbench.launch.torchrun.messages import Order, Report
from parbench.launch.trial_folder import log_end, read_ranks
from parbench.records.trial import RankRecord

PRELOAD = "torch.distributed.launcher.api"


MONITOR_INTERVAL_S = 0.05


LAST_WORDS_S = 0.5


AGENTS_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""What the agent has handlers for, which its ranks would inherit."""


class Agent:
    """A node's part in a trial: begins at once, `fileno` tells of its end, and `report` ends what is left of it."""

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
        self._answer, theirs = forks.context.Pipe(duplex=False)
        self._process = forks.context.Process(
            target=run_agent, args=(folder, order, node, dict(network), listener, theirs, forks.pid)
        )
        try:
            self._process.start()
        except (EOFError, OSError):
            raise LaunchError(f"torch's agent could not be started on node {node}: {CANNOT_FORK}") from None
        forks.guard(self._process.pid)
        theirs.close()

    def fileno(self) -> int:
        """Readable once all ranks of this node have ended."""
        return self._answer.fileno()

    def report(self) -> Report:
        """What became of the ranks of this node; those that still run are ended, and leave their stacks."""
        said = self._said()
        mine = ranks_of(self._node, self._order.processes)
        self._end(wait_s=0.0 if said else TERMINATION_GRACE_S)
        return Report(
            run_id=self._order.run_id,
            exit_codes={rank: said.get("exit_codes", {}).get(str(rank)) for rank in mine},
            ranks={record.rank: record for record in self._records()},
            logs={rank: log_end(self._folder, rank) for rank in mine},
            reason=said.get("reason"),
        )

    def _records(self) -> list[RankRecord]:
        mine = ranks_of(self._node, self._order.processes)
        return [record for record in read_ranks(self._folder, mine.stop) if record.rank in mine]

    def _said(self) -> dict[str, Any]:
        """What the agent told; nothing where it still runs."""
        if not self._answer.poll():
            return {}
        try:
            said: dict[str, Any] = json.loads(self._answer.recv_bytes())
        except EOFError:
            self._process.join()
            return {"reason": f"torch's agent on node {self._node} ended with exit code {self._process.exitcode}"}
        return said

    def _end(self, wait_s: float) -> None:
        """Ends ranks, what they started, and the agent; ranks that are waited for write their stacks first."""
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
        self._answer.close()


def ranks_of(node: int, processes: int) -> range:
    """The ranks of a node with `processes` of them."""
    return range(node * processes, (node + 1) * processes)


def run_agent(
    folder: Path,
    order: Order,
    node: int,
    network: dict[str, str],
    listener: socket.socket | None,
    answer: "connection.Connection[Any, Any]",
    parent: int,
) -> None:
    """The life of an agent in its new process: one elastic launch, without restarts, of ranks numbered by node."""
    stand_alone(folder / f"agent{node}.log", parent)
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
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # ranks have logs of their own
    )
    said: dict[str, Any] = {"exit_codes": dict.fromkeys(ranks_of(node, order.processes), 0)}
    try:
        served = _serve(listener, order) if listener else None
        elastic_launch(config, run_elastic_rank)(folder, network, os.getpid())
        del served
    except ChildFailedError as error:
        said = {"exit_codes": {rank: failure.exitcode for rank, failure in error.failures.items()}}
    except Exception as error:  # noqa: BLE001 - whatever torch raises is this trial's result
        said = {"reason": f"torch's agent on node {node} failed: {type(error).__name__}: {error}"}
    answer.send_bytes(json.dumps(said).encode())


def _serve(listener: socket.socket, order: Order) -> object:
    """The store that all agents and ranks meet at, on a port that was never guessed or lost: torch's own finds it."""
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
    """The life of a rank in the process that the agent has started, under torchrun's variables."""
    stand_alone(folder / f"rank{os.environ['RANK']}.log", agent)
    for number in AGENTS_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.environ.update(network)
    layout = random_memory_layout()

    from parbench.measure.worker import work

    code = work(folder)
    del layout
    flush_log()
    if code:
        # The agent only tells of the rank that ended first, and one that was killed has left no words of its own.
        time.sleep(LAST_WORDS_S)
        os._exit(code)


def _signal_groups(groups: Iterable[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
