"""Another parbench as a launcher: its own interpreter and packages, maybe another version. One arm of a comparison."""

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
    """A parbench: the interpreter that runs it, and the folders that this imports from before all else."""

    name: str
    python: Path = Path(sys.executable)
    paths: tuple[Path, ...] = ()

    @cached_property
    def command(self) -> list[str]:
        """What starts its server: its own, or for a tree from before the protocol the text of one."""
        # -P: not the current folder, only `paths`. It may hold another tree.
        python = [str(self.python), "-P"]
        with _starting(self.python):
            ended = subprocess.run(  # noqa: S603 - the interpreter is the user's own choice, the text ours
                [*python, "-c", HAS_DOOR], env=self.variables, capture_output=True, text=True, check=False
            )
        if ended.stdout.strip() == str(False):
            return [*python, "-c", LEGACY_SERVER.read_text(encoding="utf-8")]
        return [*python, "-m", DOOR]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its processes."""
        paths = [*map(str, self.paths), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class RemoteLauncher(Launcher):
    """Hands every launch to a server in another process: the local launcher of whatever parbench the tree has."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._server: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the server without waiting for it; `greet` does."""
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
        """Waits until the server is there, and says what it has.

        Raises `LaunchError` where it ends, `UsageError` where its version cannot be talked with.
        """
        other = self._read(Introduction)
        if not HERE.speaks_with(other):
            raise UsageError(
                f"the {self.tree.name} speaks protocol {other.range}, this parbench {HERE.range}: compare with a "
                "commit or an installation whose parbench is closer to this one"
            )
        greeting = self._read(Greeting)
        missing = [name for name in greeting.required if name not in Assignment.model_fields]
        if missing:
            raise UsageError(
                f"the {self.tree.name} must be told {', '.join(missing)} of each trial, which this parbench does not "
                "know: compare with a commit or an installation whose parbench is closer to this one"
            )
        return greeting

    def examine(self, folder: Path, workloads: Mapping[str, dict[str, Any]]) -> ExamineReply:
        """How these workloads look there, where paths in them start at `folder`."""
        self._send(ExamineRequest(folder=str(folder), workloads=dict(workloads)))
        return self._answer(ExamineReply)

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:  # noqa: ARG002
        """Has the server run the trial, on this machine."""
        self._send(LaunchRequest(folder=str(folder.resolve()), processes=processes, deadline_s=deadline_s))
        reply = self._answer(LaunchReply)
        return Outcome(exit_codes=reply.exit_codes, wall_s=reply.wall_s, timed_out=reply.timed_out, reason=reply.reason)

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
        with contextlib.suppress(BrokenPipeError):  # what it has said at its end comes with the answer
            print(message.model_dump_json(), file=self._server.stdin, flush=True)

    def _answer(self, kind: type[R]) -> R:
        reply = REPLY.validate_json(self._line())
        if isinstance(reply, Refusal):
            raise LaunchError(f"the {self.tree.name} says: {reply.reason}")
        assert isinstance(reply, kind)  # noqa: S101 - for mypy: a server answers what it is asked
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
            raise LaunchError(f"{self.tree.python} cannot run parbench: {self._last_words()}")
        return line

    def _last_words(self) -> str:
        self._log.seek(0)
        said = self._log.read().strip().splitlines()
        return said[-1] if said else "it ended without a word"


@contextlib.contextmanager
def _starting(python: Path) -> Iterator[None]:
    """Raises `LaunchError` where an interpreter cannot be started."""
    try:
        yield
    except OSError as error:
        raise LaunchError(f"{python} cannot be started: {error.strerror}") from None
