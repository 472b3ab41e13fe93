"""A launcher that runs trials with another parbench, its interpreter and its packages: one arm of a comparison.

Its class has no `name`, so `--launcher` cannot select it.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from parbench.base_types import Record
from parbench.errors import LaunchError, UsageError
from parbench.launch.base import Launcher, Outcome
from parbench.launch.remote.protocol import (
    HERE,
    REPLY,
    ExamineReply,
    ExamineRequest,
    Greeting,
    Introduction,
    LaunchReply,
    LaunchRequest,
    Refusal,
)
from parbench.records.assignment import Assignment

DOOR = "parbench.remote"
HAS_DOOR = f"from importlib.util import find_spec; print(find_spec({DOOR!r}) is not None)"
LEGACY_SERVER = Path(__file__).with_name("legacy.py")
CLOSING_S = 10.0

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Tree:
    """An installation of parbench: its interpreter, and the folders that come first on its import path."""

    name: str
    python: Path = Path(sys.executable)
    paths: tuple[Path, ...] = ()

    @cached_property
    def command(self) -> list[str]:
        """The command that starts its server; a version from before the protocol gets the text of `legacy.py`."""
        # -P: import from `paths`, not from the current folder, which may hold another parbench.
        python = [str(self.python), "-P"]
        with _starting(self.python):
            ended = subprocess.run(  # noqa: S603 - the user's interpreter, and a constant text
                [*python, "-c", HAS_DOOR], env=self.variables, capture_output=True, text=True, check=False
            )
        if ended.stdout.strip() == str(False):
            return [*python, "-c", LEGACY_SERVER.read_text(encoding="utf-8")]
        return [*python, "-m", DOOR]

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of its processes."""
        paths = [*map(str, self.paths), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class RemoteLauncher(Launcher):
    """Sends every launch to a server process, where the local launcher of the other parbench runs it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._server: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the server; `greet` waits for it."""
        command = [*self.tree.command, str(os.getpid())]
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - as long as the server
        with _starting(self.tree.python):
            self._server = subprocess.Popen(  # noqa: S603 - as above
                command,
                env=self.tree.variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        self._send(HERE)

    def greet(self) -> Greeting:
        """Waits until the server is ready, and returns its greeting.

        Raises `LaunchError` if the server ends, `UsageError` if there is no common version of the protocol.
        """
        other = self._read(Introduction)
        if not HERE.speaks_with(other):
            raise UsageError(
                f"the {self.tree.name} supports protocol versions {other.range}, this parbench {HERE.range}: compare "
                "with a commit or an installation whose parbench is closer to this one"
            )
        greeting = self._read(Greeting)
        missing = [name for name in greeting.required if name not in Assignment.model_fields]
        if missing:
            raise UsageError(
                f"the {self.tree.name} needs {', '.join(missing)} for each trial, which this parbench does not "
                "have: compare with a commit or an installation whose parbench is closer to this one"
            )
        return greeting

    def examine(self, folder: Path, workloads: Mapping[str, dict[str, Any]]) -> ExamineReply:
        """Checks workloads on the other side; relative paths in them start at `folder`. Raises `LaunchError`."""
        self._send(ExamineRequest(folder=str(folder), workloads=dict(workloads)))
        return self._answer(ExamineReply)

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:  # noqa: ARG002
        """Has the server run the trial on this machine."""
        self._send(LaunchRequest(folder=str(folder.resolve()), processes=processes, deadline_s=deadline_s))
        reply = self._answer(LaunchReply)
        return Outcome(**reply.model_dump(exclude={"kind"}))

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

    def _send(self, message: Record) -> None:
        if self._server is None or self._server.stdin is None:
            raise LaunchError(f"the server of the {self.tree.name} was not started")
        with contextlib.suppress(BrokenPipeError):  # the next read reports why it ended
            print(message.model_dump_json(), file=self._server.stdin, flush=True)

    def _answer(self, kind: type[R]) -> R:
        reply = REPLY.validate_json(self._line())
        if isinstance(reply, Refusal):
            raise LaunchError(f"the {self.tree.name} reports: {reply.reason}")
        assert isinstance(reply, kind)  # noqa: S101 - for mypy: the reply has the kind of the request
        return reply

    def _read(self, kind: type[R]) -> R:
        line = self._line()
        try:
            return kind.model_validate_json(line)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            what = ".".join(map(str, detail["loc"]))
            raise LaunchError(
                f"the {kind.__name__.lower()} of the {self.tree.name} cannot be read: {what}: {detail['msg']}"
            ) from None

    def _line(self) -> str:
        line = self._server.stdout.readline() if self._server and self._server.stdout else ""
        if not line:
            raise LaunchError(f"{self.tree.python} cannot run parbench: {self._last_error()}")
        return line

    def _last_error(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return lines[-1] if lines else "it ended without an error message"


@contextlib.contextmanager
def _starting(python: Path) -> Iterator[None]:
    """Raises `LaunchError` if an interpreter cannot be started in the block."""
    try:
        yield
    except OSError as error:
        raise LaunchError(f"{python} cannot be started: {error.strerror}") from None
