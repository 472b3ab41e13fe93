"""The local launcher: a fresh process for every rank of every trial, forked from a server that has torch imported.

Ranks live in sessions of their own, so that a signal to one also reaches what it started; what has left its session is
known by the mark of the fork server's family. Should parbench itself be killed, the kernel ends the ranks with the fork
server, and the guard (`parbench.launch.guard`) ends what they had started.
"""

import contextlib
import ctypes
import mmap
import os
import resource
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from parbench.launch.base import Launcher, Outcome
from parbench.launch.forks import CANNOT_FORK, ForkServer
from parbench.measure.journal import EXIT_UNWRITTEN

HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1  # prctl(2)
VICTIMS_GRACE_S = 1.0
TERMINATION_GRACE_S = 2.0


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


def run_rank(folder: Path, variables: Mapping[str, str], listener: socket.socket | None, parent: int) -> None:
    """The life of a rank in its new process, which `parent` has forked."""
    stand_alone(folder / f"rank{variables['RANK']}.log", parent)
    os.environ.update(variables)
    layout = random_memory_layout()

    from parbench.measure.worker import work

    code = work(folder, listener)
    del layout
    flush_log()
    # Taking an interpreter with torch apart costs a tenth of a second, and all is written.
    os._exit(code)


def stand_alone(log: Path, parent: int) -> None:
    """Gives a new process a session and a log of its own, and has it end with `parent`, which forked it."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before it could be watched
        os._exit(1)
    # The stacks in the log are wanted of a rank that is aborted, and not a dump of all its memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _log_to(log)


def _torchrun_variables(rank: int, processes: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
        "PARBENCH_LISTENER": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def random_memory_layout() -> tuple[mmap.mmap, bytearray]:
    """Gaps of random size, never touched, that move all that a rank allocates afterwards.

    Forked ranks share the server's addresses, so a cell would meet the same alignment in every round: with identical
    code, cells then differ by several per cent, round after round. A layout of its own makes that luck show as the
    spread between launches that it is (Mytkowicz et al. 2009, "Producing Wrong Data Without Doing Anything Obviously
    Wrong!").
    """
    pages = 1 + secrets.randbelow(4096)
    return mmap.mmap(-1, pages * mmap.PAGESIZE), bytearray(16 * secrets.randbelow(4096))


def flush_log() -> None:
    """Writes what is left of the log, where that can be: a rank that has failed has said so in its record."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()


def _log_to(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    except OSError:
        os._exit(EXIT_UNWRITTEN)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def signal_session(process: ForkServerProcess, number: signal.Signals) -> None:
    """Signals a rank and what it started; a rank too young to have its session is signalled alone."""
    pid = process.pid or 0
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            if process.is_alive():
                os.kill(pid, number)
