"""Examines a user's model in a fresh interpreter, so that a crash, an exit or a hang becomes an error message."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import psutil

from parbench.errors import Unsupported, first_words
from parbench.models.user_code import load_function

DEADLINE_S = 300.0


# The new process imports the same modules as this one: it takes over sys.path.
INTERPRETER = """
import json, sys
from multiprocessing.connection import Connection
parent = Connection(int(sys.argv[1]))
request = json.loads(parent.recv_bytes())
sys.path[:] = request["path"]
from parbench.models.examination import reply_to
reply_to(parent, request)
"""


PR_SET_PDEATHSIG = 1


def examine(request: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Found` for the model that `request` names. Raises `Unsupported` where it cannot be measured."""
    connection, child_connection = Pipe()
    try:
        with connection, _start_interpreter(child_connection) as process:
            with contextlib.suppress(OSError):  # it has ended already
                connection.send_bytes(json.dumps({**request, "path": [*map(str, sys.path)]}).encode())
            reply = _await_reply(connection, process)
    except OSError as error:
        reply = f"no process can be started to build it: {error.strerror}"
    if isinstance(reply, str):
        raise Unsupported(f"the model of {request['build']} cannot be examined: {reply}", field="build")
    if "refusal" in reply:
        raise Unsupported(reply["refusal"], field=reply["field"])
    return reply


def reply_to(parent: Connection, request: Mapping[str, Any]) -> None:
    """Runs in the new process: examines the model and sends the result. Ends the process."""
    # This process ends with its parent and, where memory runs out, is killed instead of it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError):
        os.dup2(
            sys.stderr.fileno(), sys.stdout.fileno()
        )  # what users' code prints must not get into the output of `parbench plan`
    try:
        reply = _probe(request)
    except Unsupported as error:
        reply = {"refusal": str(error), "field": error.field}
    except BaseException as error:  # noqa: BLE001 - people's code may raise anything
        refusal = f"the model of {request['build']} cannot be examined: {first_words(error)}"
        reply = {"refusal": refusal, "field": "build"}
    parent.send_bytes(json.dumps(reply).encode())
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads that users' code has left running


def _probe(request: Mapping[str, Any]) -> dict[str, Any]:
    function, sha256 = load_function(request["build"], Path(request["folder"]))
    from parbench.models.nn.probe import Probe

    probe = Probe(request["build"], request["vocab_size"], request["seq_len"])
    seams = probe.examine(function, request["options"], request["global_batch"])
    return {"sha256": sha256, **({"no_seams": seams} if isinstance(seams, str) else {"parameters": seams})}


def _await_reply(connection: Connection, process: subprocess.Popen[bytes]) -> dict[str, Any] | str:
    """The reply of the process, or why there is none, in words."""
    process_end = os.pidfd_open(process.pid)
    try:
        ready = wait([connection, process_end], DEADLINE_S)
        if connection in ready:
            with contextlib.suppress(EOFError, OSError):
                reply: dict[str, Any] = json.loads(connection.recv_bytes())
                return reply
            ready = wait([process_end], DEADLINE_S)
    finally:
        os.close(process_end)
    if not ready:
        return f"building it and taking a training step took more than {DEADLINE_S:g} s"
    code = process.wait()
    ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended by itself with exit code {code}"
    return f"the process that builds it {ending}"


@contextlib.contextmanager
def _start_interpreter(child_connection: Connection) -> Iterator[subprocess.Popen[bytes]]:
    """The new process, in a session of its own. When the block ends, it is killed with all that it has started."""
    with child_connection:
        process = subprocess.Popen(  # noqa: S603 - our own text, by our own interpreter
            [sys.executable, "-P", "-c", INTERPRETER, str(child_connection.fileno())],
            pass_fds=[child_connection.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        descendants = []
        with contextlib.suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for descendant in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                descendant.kill()
        process.wait()
