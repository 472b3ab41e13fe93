"""A fresh interpreter that looks at the model somebody brought: whatever ends it, or never ends, costs a sentence."""

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


# It imports what the asking process would, wherever that has its modules from.
INTERPRETER = """
import json, sys
from multiprocessing.connection import Connection
asker = Connection(int(sys.argv[1]))
question = json.loads(asker.recv_bytes())
sys.path[:] = question["path"]
from parbench.models.examination import answer
answer(asker, question)
"""


PR_SET_PDEATHSIG = 1


def ask(question: Mapping[str, Any]) -> dict[str, Any]:
    """What is found of the model that the question names. Raises `Unsupported` where it cannot be measured."""
    mine, theirs = Pipe()
    try:
        with mine, _interpreter(theirs) as process:
            with contextlib.suppress(OSError):  # it has ended already
                mine.send_bytes(json.dumps({**question, "path": [*map(str, sys.path)]}).encode())
            reply = _reply(mine, process)
    except OSError as error:
        reply = f"no process can be started for that: {error.strerror}"
    if isinstance(reply, str):
        raise Unsupported(f"the model of {question['build']} cannot be examined: {reply}", field="build")
    if "refusal" in reply:
        raise Unsupported(reply["refusal"], field=reply["field"])
    return reply


def answer(asker: Connection, question: Mapping[str, Any]) -> None:
    """The other side: builds the model and tells what comes of it."""
    # Nobody is left to tell once the asking process is gone, and that one is not to be killed for want of memory.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError):
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what people's code prints is not the output of a plan
    try:
        reply = _look(question)
    except Unsupported as error:
        reply = {"refusal": str(error), "field": error.field}
    except BaseException as error:  # noqa: BLE001 - people's code may raise anything
        refusal = f"the model of {question['build']} cannot be examined: {first_words(error)}"
        reply = {"refusal": refusal, "field": "build"}
    asker.send_bytes(json.dumps(reply).encode())
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads that people's code has left


def _look(question: Mapping[str, Any]) -> dict[str, Any]:
    function, sha256 = load_function(question["build"], Path(question["folder"]))
    from parbench.models.nn.probe import Probe

    probe = Probe(question["build"], question["vocab_size"], question["seq_len"])
    seams = probe.examine(function, question["options"], question["global_batch"])
    return {"sha256": sha256, **({"no_seams": seams} if isinstance(seams, str) else {"parameters": seams})}


def _reply(mine: Connection, process: subprocess.Popen[bytes]) -> dict[str, Any] | str:
    """What the process answers, or in words why it does not."""
    end = os.pidfd_open(process.pid)
    try:
        ready = wait([mine, end], DEADLINE_S)
        if mine in ready:
            with contextlib.suppress(EOFError, OSError):
                reply: dict[str, Any] = json.loads(mine.recv_bytes())
                return reply
            ready = wait([end], DEADLINE_S)
    finally:
        os.close(end)
    if not ready:
        return f"to build it and to take a training step takes more than {DEADLINE_S:g} s"
    code = process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended by itself with exit code {code}"
    return f"the process that builds it {how}"


@contextlib.contextmanager
def _interpreter(theirs: Connection) -> Iterator[subprocess.Popen[bytes]]:
    """The process, in a session of its own; it ends with the block, and so does all that it has started."""
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own text, by our own interpreter
            [sys.executable, "-P", "-c", INTERPRETER, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        family = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
