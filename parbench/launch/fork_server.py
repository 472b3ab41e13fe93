"""The fork server: a process with torch imported, from which ranks are forked in milliseconds.

It only imports: it never runs an operator and never touches CUDA, so every process that it forks starts clean. The
guard (`parbench.launch.cleanup_guard`) runs beside it.
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
"""The value of `MARK` in the environment of the server and all its descendants, by which they are found later."""
CANNOT_FORK = (
    "it could not be forked; check the limits on processes, open files and memory (ulimit -a), and the free memory"
)
NOT_READY = (
    "the server that forks ranks ended while it imported torch and plug-ins: its error stands above; if there is none, "
    "it exceeded a limit (ulimit -a), such as that of CPU time or of memory"
)
DYING_S = 2.0


class ForkServer:
    """The fork server of this process; `also` are modules to import beyond what every rank needs."""

    def __init__(self, *also: str) -> None:
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["parbench.measure.preload", *also])
        self.pid = 0
        self._guard: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts importing, without waiting for it.

        Raises `UsageError` if the limit on open files is too low for one rank, `LaunchError` if it cannot start.
        """
        require_open_files(ranks=1)
        os.environ.pop(VARIABLE, None)  # ranks and their children must not see it
        resource_tracker.ensure_running()  # outside the family: it cleans up after it
        # One thread in the server: forking a process with several threads can deadlock. GPUs get NVML's numbers.
        variables = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        try:
            with _environment(**variables, **{MARK: FAMILY}):
                forkserver.ensure_running()
        except OSError as error:
            folder = tempfile.gettempdir()
            raise LaunchError(
                f"the server that forks ranks cannot be started: {error}; it needs a socket in {folder}, which "
                "may be full or have too long a path; set TMPDIR to another folder"
            ) from None
        if self._guard is None:
            # In a session of its own, so that Ctrl-C in the terminal does not end it.
            self._guard = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
                [sys.executable, "-I", "-S", cleanup_guard.__file__, f"{MARK}={FAMILY}"],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Waits until everything is imported, so that no trial has to. Raises `LaunchError` if the server ends."""
        self.start()
        if self.pid and psutil.pid_exists(self.pid):
            return
        reader, writer = self.context.Pipe(duplex=False)
        first = self.context.Process(target=_send_parent_id, args=(writer,))
        with reader:
            try:
                with writer:
                    first.start()
                self.pid = int(reader.recv_bytes())
            except (EOFError, OSError):
                raise LaunchError(NOT_READY) from None
        first.join()
        first.close()

    def wait_for_end(self) -> None:
        """Waits for the server to end, as it does when a fork fails; the next `ready` starts another."""
        with contextlib.suppress(ProcessLookupError):
            server = os.pidfd_open(self.pid)
            try:
                connection.wait([server], DYING_S)
            finally:
                os.close(server)

    def guard(self, group: int | None) -> None:
        """Has a process group killed in case this process dies."""
        self._write(f"+{group}")

    def unguard(self, group: int | None) -> None:
        """Takes back `guard`: the group has ended."""
        self._write(f"-{group}")

    def sweep(self) -> None:
        """Kills all descendants of the server that still run, such as processes that ranks started and left behind."""
        if self.pid:
            cleanup_guard.kill_marked({f"{MARK}={FAMILY}"}, exempt={self.pid})

    def close(self) -> None:
        """Ends the guard. The fork server ends with this process."""
        self._write("=")
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.communicate()

    def _write(self, line: str) -> None:
        if self._guard and self._guard.stdin:
            with contextlib.suppress(BrokenPipeError):  # the guard was killed; the kernel still ends the ranks
                print(line, file=self._guard.stdin, flush=True)


def _send_parent_id(writer: "connection.Connection[Any, Any]") -> None:
    """Runs in the first process that a new server forks: sends the server's process id."""
    writer.send_bytes(str(os.getppid()).encode())


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
