"""The other end of `parbench.launch.remote.launcher`: does what it is asked to, with this tree's packages.

It runs as `python -m parbench.remote`, so that every parbench serves itself, however its modules and records differ.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO, get_args

from parbench import exit_codes
from parbench.base_types import Record
from parbench.errors import ParbenchError
from parbench.launch.local.launcher import LocalLauncher
from parbench.launch.remote.fit import fit_workload
from parbench.launch.remote.protocol import (
    HERE,
    REQUEST,
    ExamineReply,
    ExamineRequest,
    Greeting,
    Introduction,
    LaunchReply,
    LaunchRequest,
    Refusal,
    Reply,
)
from parbench.models.base import FAMILIES
from parbench.records.assignment import Assignment, Purpose
from parbench.strategies.base import STRATEGIES
from parbench.system.environment import capture

EXIT_INTERRUPTED = 128 + signal.SIGINT
PR_SET_PDEATHSIG = 1  # prctl(2)


def main(arguments: Sequence[str]) -> int:
    """Serves the process whose number is the only argument, its parent. The exit code."""
    if len(arguments) != 1 or not arguments[0].isdecimal():
        return _refuse("python -m parbench.remote serves parbench check --against, which starts it: run that instead")
    _end_with(int(arguments[0]))
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a plug-in prints is no reply
    try:
        return _serve(replies)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _serve(replies: TextIO) -> int:
    """Introduces itself, greets, and answers every request until input ends."""
    _say(HERE, replies)
    other = Introduction.model_validate_json(sys.stdin.readline())
    if not HERE.speaks_with(other):
        return _refuse(f"this parbench speaks protocol {HERE.range}, and is asked for {other.range}")
    launcher = LocalLauncher()
    try:
        launcher.start()
        _say(_greet(), replies)
        for line in sys.stdin:
            _say(_answer(REQUEST.validate_json(line), launcher), replies)
    finally:
        launcher.close()
    return 0


def _greet() -> Greeting:
    for registry in (STRATEGIES, FAMILIES):
        registry.names()
    return Greeting(
        environment=capture(),
        modules=_module_files(),
        required=tuple(name for name, field in Assignment.model_fields.items() if field.is_required()),
        purposes=get_args(Purpose),
    )


def _answer(request: LaunchRequest | ExamineRequest, launcher: LocalLauncher) -> Reply:
    try:
        return _launch(request, launcher) if isinstance(request, LaunchRequest) else _examine(request)
    except ParbenchError as error:
        return Refusal(reason=str(error))


def _launch(request: LaunchRequest, launcher: LocalLauncher) -> LaunchReply:
    folder = Path(request.folder)
    content = json.loads((folder / "cell.json").read_text())
    workload, unknown = fit_workload(content["workload"], content.get("folder", "."))
    if unknown:
        content["workload"] = workload.model_dump(mode="json")
        (folder / "cell.json").write_text(json.dumps(content, indent=2))
    outcome = launcher.launch(folder, processes=request.processes, deadline_s=request.deadline_s)
    return LaunchReply(**asdict(outcome))


def _examine(request: ExamineRequest) -> ExamineReply:
    models, refusals, unknown = {}, {}, {}
    for name, content in request.workloads.items():
        try:
            workload, unknown[name] = fit_workload(content, request.folder)
            size = workload.global_batch
            model = workload.model.examined(workload.vocab_size, workload.seq_len, global_batch=size)
            models[name] = model.model_dump(mode="json")
            model.load()  # the examination leaves none of its modules in this process
        except ParbenchError as error:
            refusals[name] = str(error)
    return ExamineReply(models=models, refusals=refusals, unknown=unknown, modules=_module_files())


def _module_files() -> tuple[str, ...]:
    return tuple(file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None)))


def _say(message: Record, replies: TextIO) -> None:
    print(message.model_dump_json(), file=replies, flush=True)


def _refuse(reason: str) -> int:
    print(reason, file=sys.stderr)
    return exit_codes.BAD_USAGE


def _end_with(parent: int) -> None:
    """Has the kernel end this process with its parent: whoever waits for a trial does not see its input end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        sys.exit(exit_codes.BAD_USAGE)
