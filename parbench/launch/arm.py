"""A launcher of its own interpreter and packages: one arm of a comparison of two."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parbench.environment import Environment
from parbench.errors import LaunchError
from parbench.launch.base import Launcher, Outcome

SERVER = (Path(__file__).parent / "serve.py").read_text(encoding="utf-8")
CLOSING_S = 10.0


class ArmLauncher(Launcher):
    """Hands every launch to a server in another process, which `python` runs with `paths` before all else to import.

    The server is the local launcher of whatever parbench that interpreter finds there.
    """

    def __init__(self, python: Path, paths: Sequence[Path] = ()) -> None:
        self.python, self.paths = python, tuple(paths)
        self.modules: tuple[Path, ...] = ()
        self._server: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the server without waiting for it; `greet` does."""
        inherited = os.environ.get("PYTHONPATH")
        paths = [*map(str, self.paths), *([inherited] if inherited else [])]
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - as long as the server
        try:
            # Not this folder, only `paths`: it may hold the other arm's packages.
            self._server = subprocess.Popen(  # noqa: S603 - the interpreter is the user's own choice, the text ours
                [self.python, "-P", "-c", SERVER, str(os.getpid())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        except OSError as error:
            raise LaunchError(f"{self.python} cannot be started: {error.strerror}") from None

    def greet(self) -> Environment:
        """Waits until the server is there; the environment that it runs in. Raises `LaunchError` where it ends."""
        greeting = self._reply()
        self.modules = tuple(map(Path, greeting["modules"]))
        return Environment.model_validate(greeting["environment"])

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:  # noqa: ARG002
        """Has the server run the trial, on this machine."""
        request = {"folder": str(folder.resolve()), "processes": processes, "deadline_s": deadline_s}
        if self._server is None or self._server.stdin is None:
            raise LaunchError("the arm was not started")
        with contextlib.suppress(BrokenPipeError):
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
        outcome = self._reply()
        return Outcome(**{**outcome, "exit_codes": tuple(outcome["exit_codes"])})

    def close(self) -> None:
        """Ends the server, which ends its ranks."""
        server, self._server = self._server, None
        if server is None:
            return
        with contextlib.suppress(BrokenPipeError):
            if server.stdin:
                server.stdin.close()
        try:
            server.wait(CLOSING_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stdout:
            server.stdout.close()
        self._log.close()

    def _reply(self) -> dict[str, Any]:
        line = self._server.stdout.readline() if self._server and self._server.stdout else ""
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            raise LaunchError(f"{self.python} cannot run parbench: {self._last_words()}") from None
        return reply

    def _last_words(self) -> str:
        self._log.seek(0)
        said = self._log.read().strip().splitlines()
        return said[-1] if said else "it ended without a word"
