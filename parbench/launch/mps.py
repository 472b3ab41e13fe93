"""NVIDIA's Multi-Process Service (MPS) for the ranks of one trial.

A daemon is started for each trial, in folders of its own, and ends with it: ranks that are killed amid their work may
leave a server in a state that the next ones should not meet. The server itself starts with the first rank. Whatever
becomes of parbench, both carry the mark of the fork server's family, by which all of it is found and killed.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from parbench.launch.fork_server import FAMILY, MARK, ForkServer
from parbench.system.files import made, opened, writing
from parbench.system.mps import CONTROL, LOGS, PIPES, command_daemon
from parbench.system.nvml import nvml_gpu_uuids, visible_gpus

START_S = 30.0
PAUSE_S = 0.05
QUIT_S = 2.0
LONGEST_NAME, LONGEST_PATH = "control_privileged", 107
"""The longest name among the daemon's sockets, and the bytes that a socket's path may have (unix(7), `sun_path`)."""


class Mps:
    """The daemon that serves a trial: one that answers here already, or else one of its own, which logs to `logs`.

    Once it has started, `variables` lead ranks to it, and `warnings` say what others have set up.
    """

    def __init__(self, forks: ForkServer, logs: Path) -> None:
        self._forks, self._logs = forks, logs
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: Path | None = None
        self.variables: dict[str, str] = {}
        self.warnings: tuple[str, ...] = ()

    def start(self) -> str | None:
        """Finds a daemon, or starts one and waits until it answers. The reason if it does not."""
        if command_daemon("get_server_list", os.environ):
            self.warnings = ("a daemon of MPS that ran here already served the ranks, as it was set up",)
            return None
        try:
            reason = self._start()
        except OSError as error:
            reason = f"{error.filename or CONTROL}: {error.strerror}"
        return reason and f"MPS could not be started: {reason}"

    def end(self) -> None:
        """Ends the trial's own daemon and its server, once the ranks have ended. May be called again."""
        if self._process is not None:
            command_daemon("quit", self._environment, QUIT_S)
            try:
                self._process.wait(QUIT_S)
            except subprocess.TimeoutExpired:
                # It is not reaped yet, so its process id is not reused: the group is its own.
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._forks.unguard(self._process.pid)
            self._process = None
        if self._pipes is not None:
            shutil.rmtree(self._pipes, ignore_errors=True)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.variables, MARK: FAMILY}

    def _start(self) -> str | None:
        pipes = self._pipes = Path(tempfile.mkdtemp(prefix="mps-"))
        if len(os.fsencode(pipes / LONGEST_NAME)) > LONGEST_PATH:
            return f"its sockets need a shorter path than {pipes}; set TMPDIR to another folder"
        self.variables = {PIPES: str(pipes), LOGS: str(self._logs.resolve()), **_selected_gpus()}
        with writing(self._logs):
            made(self._logs)
            output = opened(self._logs / "output.log", "wb")
        with output:
            # In a session of its own, so that Ctrl-C in the terminal does not end it before the ranks.
            self._process = subprocess.Popen(  # noqa: S603 - a program of the driver
                [CONTROL, "-f"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._forks.guard(self._process.pid)
        until = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < until:
            if command_daemon("get_server_list", self._environment):
                return None
            time.sleep(PAUSE_S)
        lines = (self._logs / "output.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"{CONTROL} does not answer, and its log is empty"


def _selected_gpus() -> dict[str, str]:
    """The GPUs that CUDA shows, by UUID: a daemon numbers its GPUs anew, and a number in a rank would count in those.

    (NVIDIA, "Multi-Process Service", on CUDA_VISIBLE_DEVICES.)
    """
    uuids = visible_gpus(nvml_gpu_uuids(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return {"CUDA_VISIBLE_DEVICES": ",".join(uuids)} if uuids else {}
