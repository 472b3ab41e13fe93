"""The process of a rank, as all launchers set it up and signal it."""

import contextlib
import ctypes
import importlib
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

LOOPBACK = "127.0.0.1"
WORKER = "parbench.measure.worker"
"""The module whose `work` a rank runs, unless its launcher is for another one."""
PR_SET_PDEATHSIG = 1  # prctl(2)
PEERS_GRACE_S = 1.0
"""After one rank has failed, how long the others have to end by themselves and record their errors."""
TERMINATION_GRACE_S = 2.0
"""How long an aborted rank has to write its stacks into its log before it is killed."""


def run_rank(
    folder: Path, variables: Mapping[str, str], listener: socket.socket | None, parent: int, worker: str = WORKER
) -> None:
    """Runs a rank in a process that `parent` has forked for it, then ends the process.

    `variables` are those of torchrun, such as `RANK`; `listener` is the open socket that rank 0 serves the store on.
    The rank is the `work` of module `worker`.
    """
    detach(folder / f"rank{variables['RANK']}.log", parent)
    os.environ.update(variables)
    layout = random_memory_layout()
    code = importlib.import_module(worker).work(folder, listener)
    del layout
    flush_log()
    # A normal exit of an interpreter with torch takes a tenth of a second, and everything is written.
    os._exit(code)


def detach(log: Path, parent: int) -> None:
    """Gives a new process its own session and log, and has it end with `parent`, which forked it."""
    os.setsid()
    if not die_with(parent):
        os._exit(1)
    # An aborted rank writes its stacks into the log; a dump of its memory is not needed.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _log_to(log)


def die_with(parent: int) -> bool:
    """Has the kernel kill this process when its parent ends; False if the parent `parent` has ended already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def random_memory_layout() -> tuple[mmap.mmap, bytearray]:
    """Allocates gaps of random size, never touched, which shift all later allocations as long as they are referenced.

    Forked ranks inherit the server's addresses, so a cell would have the same alignment in every round: cells with
    identical code would then differ by several per cent in all rounds. With a random layout for each rank, this effect
    shows as spread between launches (Mytkowicz et al. 2009, "Producing Wrong Data Without Doing Anything Obviously
    Wrong!").
    """
    pages = 1 + secrets.randbelow(4096)
    return mmap.mmap(-1, pages * mmap.PAGESIZE), bytearray(16 * secrets.randbelow(4096))


def flush_log() -> None:
    """Flushes the log. An error here, such as a full disk, does not matter: the rank's record has its own."""
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
    """Signals a rank and its children; a rank that has no session of its own yet is signalled alone."""
    pid = process.pid or 0
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            if process.is_alive():
                os.kill(pid, number)
