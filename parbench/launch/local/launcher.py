"""The local launcher: a fresh process for every rank of every trial, forked from a server with torch imported.

Each rank has its own session, so that a signal reaches its children too; children that left the session are found by
the mark of the fork server. If parbench itself is killed, the kernel kills the fork server and the ranks, and the guard
(`parbench.launch.cleanup_guard`) kills their children, and the daemon of MPS where one serves the trial.
"""

import signal
import socket
import time
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from parbench.launch.base import Launcher, Outcome
from parbench.launch.fork_server import CANNOT_FORK, ForkServer
from parbench.launch.mps import Mps
from parbench.launch.rank_process import (
    LOOPBACK,
    PEERS_GRACE_S,
    TERMINATION_GRACE_S,
    WORKER,
    run_rank,
    signal_session,
)
from parbench.launch.trial_folder import asks_for_mps
from parbench.system.devices import Machine, detect


class LocalLauncher(Launcher):
    """Starts ranks on this machine; they communicate over loopback. A rank is the `work` of module `worker`."""

    name = "local"

    def __init__(self, worker: str = WORKER) -> None:
        self._worker = worker
        self._forks = ForkServer()
        self._running: list[ForkServerProcess] = []
        self._mps: Mps | None = None

    def machine(self) -> Machine:
        """The devices of this machine, where trials that ask for MPS get it."""
        return detect()

    def start(self) -> None:
        """Starts importing torch in the fork server, without waiting for it."""
        self._forks.start()

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:  # noqa: ARG002
        """Runs the trial. An exception, also that of Ctrl-C, leaves this call after the ranks have ended."""
        self._forks.ready()
        started = time.monotonic()
        mps = self._mps = Mps(self._forks, folder / "mps") if asks_for_mps(folder) else None
        with socket.create_server((LOOPBACK, 0), backlog=processes) as listener:
            try:
                reason = (mps.start() if mps else None) or self._start_all(folder, processes, listener)
                timed_out = reason is None and not self._wait(started + deadline_s)
                exit_codes = [None if reason else process.exitcode for process in self._running]
            finally:
                self._end_all()
        return Outcome(
            exit_codes=tuple(exit_codes) or (None,) * processes,
            wall_s=time.monotonic() - started,
            timed_out=timed_out,
            reason=reason,
            warnings=mps.warnings if mps else (),
        )

    def close(self) -> None:
        """Ends the ranks that still run. The fork server ends with this process."""
        self._end_all()
        self._forks.close()

    def _start_all(self, folder: Path, processes: int, listener: socket.socket) -> str | None:
        """Starts the ranks. The reason if one could not be forked: then the next launch starts a new fork server."""
        port, service = listener.getsockname()[1], self._mps.variables if self._mps else {}
        self._running = [
            self._forks.context.Process(
                target=run_rank,
                args=(
                    folder,
                    {**_torchrun_variables(rank, processes, port), **service},
                    None if rank else listener,
                    self._forks.pid,
                    self._worker,
                ),
            )
            for rank in range(processes)
        ]
        for rank, process in enumerate(self._running):
            try:
                process.start()
            except (EOFError, OSError):
                self._forks.wait_for_end()
                return f"rank {rank} could not be started: {CANNOT_FORK}"
            self._forks.guard(process.pid)
        return None

    def _wait(self, deadline: float) -> bool:
        """Waits for all ranks, or for `PEERS_GRACE_S` once one has failed. False if `deadline` came first."""
        waiting: dict[object, ForkServerProcess] = {process.sentinel: process for process in self._running}
        until = deadline
        while waiting:
            ended = connection.wait(
                [process.sentinel for process in waiting.values()], timeout=max(0.0, until - time.monotonic())
            )
            if not ended:
                return until < deadline
            for sentinel in ended:
                process = waiting.pop(sentinel)
                process.join()
                if process.exitcode:
                    until = min(until, time.monotonic() + PEERS_GRACE_S)
        return True

    def _end_all(self) -> None:
        """Aborts the ranks that still run, which then write their stacks into their logs, and kills all children."""
        alive = [process for process in self._running if process.pid and process.is_alive()]
        for process in alive:
            signal_session(process, signal.SIGABRT)
        until = time.monotonic() + TERMINATION_GRACE_S
        while alive and (remaining := until - time.monotonic()) > 0:
            connection.wait([process.sentinel for process in alive], timeout=remaining)
            alive = [process for process in alive if process.is_alive()]
        # A signal may interrupt this, and then `close` calls it again: a rank stays in the list until it has ended.
        while self._running:
            process = self._running[-1]
            if process.pid:
                signal_session(process, signal.SIGKILL)
                process.join()
                self._forks.unguard(process.pid)
            self._running.pop().close()
        if self._mps is not None:
            self._mps.end()
            self._mps = None
        self._forks.sweep()


def _torchrun_variables(rank: int, processes: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "PARBENCH_LISTENER": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
