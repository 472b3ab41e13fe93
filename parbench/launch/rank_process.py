"""The process of a rank: what it is before it measures, and how it is signalled."""

import contextlib
import ctypes
import mmap
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from parbench.measure.journal import EXIT_UNWRITTEN

HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1  # prctl(2)


VICTIMS_GRACE_S = 1.0


TERMINATION_GRACE_S = 2.0


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
