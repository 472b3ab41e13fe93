"""The fork server: a process that has torch imported, and from which ranks are forked in a moment.

It only imports: it never runs an operator and never touches CUDA, so every process that it forks starts clean. Beside
it waits the guard (`parbench.launch.guard`).
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import forkserver, get_context
from pathlib import Path

GUARD = Path(__file__).parent / "guard.py"


class ForkServer:
    """This process' fork server; `also` are modules to import beyond what every rank needs."""

    def __init__(self, *also: str) -> None:
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["parbench.measure.preload", *also])
        self._guard: subprocess.Popen[str] | None = None
        self._ready = False

    def start(self) -> None:
        """Begins importing, without waiting for it."""
        # One thread in the server: forking a process with several is what deadlocks. GPUs are numbered as NVML does.
        with _environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", CUDA_DEVICE_ORDER="PCI_BUS_ID"):
            forkserver.ensure_running()
        if self._guard is None:
            # In a session of its own, out of reach of what is typed in the terminal.
            self._guard = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
                [sys.executable, "-I", "-S", GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
            )

    def ready(self) -> None:
        """Waits until all is imported: no trial's time is spent on that."""
        self.start()
        if not self._ready:
            first = self.context.Process(target=os.getpid)
            first.start()
            first.join()
            first.close()
            self._ready = True

    def guard(self, group: int | None) -> None:
        """Has a process group ended should this process be killed."""
        self._tell(f"+{group}")

    def unguard(self, group: int | None) -> None:
        """The group has ended."""
        self._tell(f"-{group}")

    def close(self) -> None:
        """Ends the guard. The fork server ends with this process."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.communicate()

    def _tell(self, line: str) -> None:
        if self._guard and self._guard.stdin:
            with contextlib.suppress(BrokenPipeError):  # somebody has ended it; the kernel still ends the ranks
                print(line, file=self._guard.stdin, flush=True)


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
