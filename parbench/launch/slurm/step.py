"""One step of a SLURM job: starts `srun`, receives the messages of its tasks, and ends it."""

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
from parbench.launch.slurm.commands import call, step_command, step_environment
from parbench.launch.slurm.messages import MESSAGE, FileKind, FilePiece, RankEnd, Ready
from parbench.launch.trial_folder import write_new
from parbench.system.files import opened, writing

# Longer than `TERMINATION_GRACE_S`, which an ending task gives its rank.
ENDING_S = 5.0
FORCED_END_S = 10.0


class Step:
    """A running `srun` of a module of parbench with `tasks` tasks, equally many on each of `nodes`.

    `ready`, `ends` and `files` hold what the tasks have sent so far, by rank; `over` is true once srun's output ended.
    `module` is the module's name and its arguments.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        tasks: int,
        module: Sequence[str],
        log: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.ready: dict[int, Ready] = {}
        self.ends: dict[int, RankEnd] = {}
        self.files: defaultdict[tuple[int, FileKind], bytearray] = defaultdict(bytearray)
        self.over = False
        self._log = log
        self._messages: queue.SimpleQueue[Ready | FilePiece | RankEnd | None] = queue.SimpleQueue()
        with writing(log.parent), opened(log, "wb") as output:
            # In a session of its own: Ctrl-C must reach only parbench, which then ends the step.
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

    def send(self, message: BaseModel) -> None:
        """Sends a message to every task that still runs."""
        with contextlib.suppress(BrokenPipeError):
            if self._srun.stdin:
                self._srun.stdin.write(message.model_dump_json() + "\n")
                self._srun.stdin.flush()

    def receive_until(self, enough: Callable[[], bool], deadline: float) -> bool:
        """Receives messages until `enough()` is true, the step is over, or the `deadline` is reached.

        `deadline` is a time of the monotonic clock. Returns `enough()`.
        """
        while not enough() and not self.over:
            try:
                message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            match message:
                case Ready():
                    self.ready[message.rank] = message
                case FilePiece():
                    self.files[message.rank, message.file] += message.data
                case RankEnd():
                    self.ends[message.rank] = message
                case None:
                    self.over = True
        return enough()

    def end(self) -> None:
        """Ends the step: closes its input, then tries `scancel`, then kills `srun`. Returns when it is over."""
        for attempt, patience_s in (
            (self._close_input, ENDING_S),
            (self._cancel, FORCED_END_S),
            (self._srun.kill, FORCED_END_S),
        ):
            attempt()
            self.receive_until(lambda: self.over, time.monotonic() + patience_s)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._srun.wait(patience_s if self.over else 0)
                break
        if self.over and self._srun.stdout:
            self._srun.stdout.close()

    def write_files(self, folder: Path) -> None:
        """Writes the records and logs of the ranks into the trial's folder. Raises `UnwrittenError`."""
        with writing(folder):
            for (rank, kind), content in self.files.items():
                write_new(folder / f"rank{rank}.{kind}", bytes(content))

    @property
    def error_text(self) -> str:
        """The first error that SLURM, or a task that could not start, has logged; a task's own comes first."""
        log = self._log.read_text(errors="replace").splitlines()
        # A missing current folder on a node does not matter: tasks get everything as messages.
        lines = [line.strip() for line in log if "rror:" in line and "couldn't chdir" not in line]
        own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
        return next(iter(own + lines), f"srun ended with exit code {self._srun.poll()}")

    def _close_input(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self._srun.stdin:
                self._srun.stdin.close()

    def _cancel(self) -> None:
        """Cancels the step. Before its number is known, only its `srun` can do that."""
        self._srun.terminate()
        with contextlib.suppress(LaunchError):
            for task in list(self.ready.values())[:1]:
                call("scancel", "--signal=KILL", f"{os.environ['SLURM_JOB_ID']}.{task.step}")

    def _read(self) -> None:
        try:
            for line in self._srun.stdout or ():
                with contextlib.suppress(ValidationError):  # the output of a prologue
                    self._messages.put(MESSAGE.validate_json(line))
        finally:
            self._messages.put(None)
