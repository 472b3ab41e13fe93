"""The fork server: a process that has torch imported, and from which ranks are forked in a moment.

It only imports: it never runs an operator and never touches CUDA, so every process that it forks starts clean. Beside
it waits the guard (`parbench.launch.cleanup_guard`).
"""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import connection, forkserver, get_context, resource_tracker
from typing import Any

import psutil

from parbench.errors import LaunchError
from parbench.launch import cleanup_guard
from parbench.launch.open_files import require_open_files
from parbench.launch.secret import VARIABLE

MARK = "PARBENCH_FAMILY"


FAMILY = secrets.token_hex(8)
"""What the server has in its environment, and with it all that comes from it: so it is found wherever it goes."""


CANNOT_FORK = "it could not be forked; is there room for more processes and open files, and memory?"


NOT_READY = (
    "the server that forks ranks ended while it imported torch and plug-ins: what it said of that stands above; where "
    "there is nothing, it met a limit (ulimit -a), such as that of CPU time or of memory"
)


DYING_S = 2.0


class ForkServer:
    """This process' fork server; `also` are modules to import beyond what every rank needs."""

    def __init__(self, *also: str) -> None:
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["parbench.measure.preload", *also])
        self.pid = 0
        self._guard: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begins importing, without waiting for it. Raises `UsageError` where not even one rank could run."""
        require_open_files(ranks=1)
        os.environ.pop(VARIABLE, None)  # no rank, nor what it starts, is to see the secret of nodes
        resource_tracker.ensure_running()  # it has to outlive the family, to clear away after it
        # One thread in the server: forking a process with several is what deadlocks. GPUs are numbered as NVML does.
        variables = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        try:
            with _environment(**variables, **{MARK: FAMILY}):
                forkserver.ensure_running()
        except OSError as error:
            folder = tempfile.gettempdir()
            raise LaunchError(
                f"the server that forks ranks cannot be started: {error}; it needs a socket below {folder}: a long or "
                "full folder is none for it, TMPDIR names another"
            ) from None
        if self._guard is None:
            # In a session of its own, out of reach of what is typed in the terminal.
            self._guard = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
                [sys.executable, "-I", "-S", cleanup_guard.__file__, f"{MARK}={FAMILY}"],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Waits until all is imported: no trial's time is spent on that."""
        self.start()
        if self.pid and psutil.pid_exists(self.pid):
            return
        answer, theirs = self.context.Pipe(duplex=False)
        first = self.context.Process(target=_tell_parent, args=(theirs,))
        with answer:
            try:
                with theirs:
                    first.start()
                self.pid = int(answer.recv_bytes())
            except (EOFError, OSError):
                raise LaunchError(NOT_READY) from None
        first.join()
        first.close()

    def could_not_fork(self) -> None:
        """Waits for the end of the server, which does not survive that: the next `ready` starts another."""
        with contextlib.suppress(ProcessLookupError):
            ended = os.pidfd_open(self.pid)
            try:
                connection.wait([ended], DYING_S)
            finally:
                os.close(ended)

    def guard(self, group: int | None) -> None:
        """Has a process group ended should this process be killed."""
        self._tell(f"+{group}")

    def unguard(self, group: int | None) -> None:
        """The group has ended."""
        self._tell(f"-{group}")

    def sweep(self) -> None:
        """Ends all that came from this server and still runs: what ranks have started and left behind, anywhere."""
        if self.pid:
            cleanup_guard.end_marked({f"{MARK}={FAMILY}"}, spared={self.pid})

    def close(self) -> None:
        """Ends the guard. The fork server ends with this process."""
        self._tell("=")
        ended, self._guard = self._guard, None
        if ended is not None:
            ended.communicate()

    def _tell(self, line: str) -> None:
        if self._guard and self._guard.stdin:
            with contextlib.suppress(BrokenPipeError):  # somebody has ended it; the kernel still ends the ranks
                print(line, file=self._guard.stdin, flush=True)


def _tell_parent(answer: "connection.Connection[Any, Any]") -> None:
    """The first that a new server forks: tells its number."""
    answer.send_bytes(str(os.getppid()).encode())


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
