"""The local launcher: a fresh process for every rank of every trial, forked from a server that has torch imported.

Ranks live in sessions of their own, so that a signal to one also reaches what it started; what has left its session is
known by the mark of the fork server's family. Should parbench itself be killed, the kernel ends the ranks with the fork
server, and the guard (`parbench.launch.cleanup_guard`) ends what they had started.
"""

import signal
import socket
import time
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from parbench.launch.base import Launcher, Outcome
from parbench.launch.fork_server import CANNOT_FORK, ForkServer
from parbench.launch.rank_process import (
    HOST,
    TERMINATION_GRACE_S,
    VICTIMS_GRACE_S,
    _torchrun_variables,
    run_rank,
    signal_session,
)


class LocalLauncher(Launcher):
    """Starts ranks on this machine, on loopback."""

    name = "local"

    def __init__(self) -> None:
        self._forks = ForkServer()
        self._running: list[ForkServerProcess] = []

    def start(self) -> None:
        """Begins importing torch in the fork server, without waiting for it."""
        self._forks.start()

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:  # noqa: ARG002
        """Runs the trial; whatever ends this call early, also Ctrl-C, ends its ranks first."""
        self._forks.ready()
        started = time.monotonic()
        with socket.create_server((HOST, 0), backlog=processes) as listener:
            port = listener.getsockname()[1]
            self._running = [
                self._forks.context.Process(
                    target=run_rank,
                    args=(
                        folder,
                        _torchrun_variables(rank, processes, port),
                        None if rank else listener,
                        self._forks.pid,
                    ),
                )
                for rank in range(processes)
            ]
            try:
                reason = self._start_all()
                timed_out = reason is None and not self._wait(started + deadline_s)
                exit_codes = tuple(None if reason else process.exitcode for process in self._running)
            finally:
                self._end_all()
        wall_s = time.monotonic() - started
        return Outcome(exit_codes=exit_codes, wall_s=wall_s, timed_out=timed_out, reason=reason)

    def close(self) -> None:
        """Ends ranks that still run. The fork server ends with this process."""
        self._end_all()
        self._forks.close()

    def _start_all(self) -> str | None:
        """Starts the ranks, or tells why one could not be: then the fork server has ended, and is started anew."""
        for rank, process in enumerate(self._running):
            try:
                process.start()
            except (EOFError, OSError):
                self._forks.could_not_fork()
                return f"rank {rank} could not be started: {CANNOT_FORK}"
            self._forks.guard(process.pid)
        return None

    def _wait(self, deadline: float) -> bool:
        """Waits for all ranks; once one has failed the others, who may wait for it, get a moment. False: too late."""
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
                    until = min(until, time.monotonic() + VICTIMS_GRACE_S)
        return True

    def _end_all(self) -> None:
        """Has the ranks that are left write their stacks into their logs, then ends all with their children."""
        left = [process for process in self._running if process.pid and process.is_alive()]
        for process in left:
            signal_session(process, signal.SIGABRT)
        until = time.monotonic() + TERMINATION_GRACE_S
        while left and (remaining := until - time.monotonic()) > 0:
            connection.wait([process.sentinel for process in left], timeout=remaining)
            left = [process for process in left if process.is_alive()]
        # A signal may end this at any point, and then it is called again.
        while self._running:
            process = self._running[-1]
            if process.pid:
                signal_session(process, signal.SIGKILL)
                process.join()
                self._forks.unguard(process.pid)
            self._running.pop().close()
        self._forks.sweep()
