"""One step of a SLURM job: `srun`, what its tasks tell, and its end."""

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from parbench.errors import LaunchError
from parbench.launch.slurm.commands import asked, step_command, step_environment
from parbench.launch.slurm.messages import MESSAGE, Ended, FileKind, Part, Ready, content_of
from parbench.launch.trial_folder import write_new
from parbench.system.files import opened, writing

# A task that is told to end gives its rank two seconds.
ENDING_S = 5.0


FORCED_END_S = 10.0


class Step:
    """A running `srun` of a module of parbench, equally often on each of `nodes`; what its tasks have told so far."""

    def __init__(
        self,
        nodes: Sequence[str],
        tasks: int,
        module: Sequence[str],
        log: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.ready: dict[int, Ready] = {}
        self.ended: dict[int, Ended] = {}
        self.files: defaultdict[tuple[int, FileKind], bytearray] = defaultdict(bytearray)
        self.over = False
        self._log = log
        self._messages: queue.SimpleQueue[Ready | Part | Ended | None] = queue.SimpleQueue()
        with writing(log.parent), opened(log, "wb") as output:
            # In a session of its own: Ctrl-C is for parbench, which ends the step in order.
            self._srun = subprocess.Popen(  # noqa: S603 - a list of arguments, and no shell
                step_command(nodes, tasks, [sys.executable, "-P", "-m", *module]),
                env={**step_environment(), **(variables or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, what: BaseModel) -> None:
        """Tells every task; what is gone does not hear it."""
        with contextlib.suppress(BrokenPipeError):
            if self._srun.stdin:
                self._srun.stdin.write(what.model_dump_json() + "\n")
                self._srun.stdin.flush()

    def hears(self, enough: Callable[[], bool], deadline: float) -> bool:
        """Listens until it has heard enough, the step is over, or `deadline` on the monotonic clock; whether it has."""
        while not enough() and not self.over:
            try:
                message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            match message:
                case Ready():
                    self.ready[message.rank] = message
                case Part():
                    self.files[message.rank, message.file] += content_of(message)
                case Ended():
                    self.ended[message.rank] = message
                case None:
                    self.over = True
        return enough()

    def end(self) -> None:
        """Ends the step: by asking, else by `scancel`, else by killing `srun`. Returns when it is over."""
        for means, patience in ((self._ask, ENDING_S), (self._cancel, FORCED_END_S), (self._srun.kill, FORCED_END_S)):
            means()
            self.hears(lambda: self.over, time.monotonic() + patience)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._srun.wait(patience if self.over else 0)
                break
        if self.over and self._srun.stdout:
            self._srun.stdout.close()

    def keep_files(self, folder: Path) -> None:
        """Puts what the ranks left where a launcher's caller looks for it."""
        with writing(folder):
            for (rank, kind), content in self.files.items():
                write_new(folder / f"rank{rank}.{kind}", bytes(content))

    @property
    def complaint(self) -> str:
        """What SLURM, or a task that could not even start, said was wrong."""
        said = self._log.read_text(errors="replace").splitlines()
        # A folder that is not on the node is no matter: tasks hear all that they need.
        lines = [line.strip() for line in said if "rror:" in line and "couldn't chdir" not in line]
        own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
        return next(iter(own + lines), f"srun ended with exit code {self._srun.poll()}")

    def _ask(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self._srun.stdin:
                self._srun.stdin.close()

    def _cancel(self) -> None:
        """A step so young that its number is not known is cancelled by its srun."""
        self._srun.terminate()
        with contextlib.suppress(LaunchError):
            for known in list(self.ready.values())[:1]:
                asked("scancel", "--signal=KILL", f"{os.environ['SLURM_JOB_ID']}.{known.step}")

    def _read(self) -> None:
        try:
            for line in self._srun.stdout or ():
                with contextlib.suppress(ValidationError):  # of what a prologue prints
                    self._messages.put(MESSAGE.validate_json(line))
        finally:
            self._messages.put(None)
