"""The server for `parbench.launch.remote.launcher`: it runs trials with the packages of its own interpreter.

It runs as `python -m parbench.remote`, so that each version of parbench runs its own code, whatever its modules are.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO, get_args

from parbench.base_types import Record
from parbench.errors import ParbenchError
from parbench.launch.local.launcher import LocalLauncher
from parbench.launch.rank_process import die_with
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
from parbench.system import exit_codes
from parbench.system.environment import capture

EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str]) -> int:
    """Serves the parent process, whose id is the only argument. Returns the exit code."""
    if len(arguments) != 1 or not arguments[0].isdecimal():
        return _refuse("python -m parbench.remote is started by parbench check --against; run that instead")
    if not die_with(int(arguments[0])):  # a parent that waits for a trial does not close the input
        return exit_codes.BAD_USAGE
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the output of plug-ins must not mix with replies
    try:
        return _serve(replies)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _serve(replies: TextIO) -> int:
    """Sends introduction and greeting, then answers every request until the input ends."""
    _send(HERE, replies)
    other = Introduction.model_validate_json(sys.stdin.readline())
    if not HERE.speaks_with(other):
        return _refuse(f"this parbench supports protocol versions {HERE.range}, the other one {other.range}")
    launcher = LocalLauncher()
    try:
        launcher.start()
        _send(_greet(), replies)
        for line in sys.stdin:
            _send(_answer(REQUEST.validate_json(line), launcher), replies)
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
            model.load()  # the examination ran in another process, and `modules` are those of this one
        except ParbenchError as error:
            refusals[name] = str(error)
    return ExamineReply(models=models, refusals=refusals, unknown=unknown, modules=_module_files())


def _module_files() -> tuple[str, ...]:
    return tuple(file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None)))


def _send(message: Record, replies: TextIO) -> None:
    print(message.model_dump_json(), file=replies, flush=True)


def _refuse(reason: str) -> int:
    print(reason, file=sys.stderr)
    return exit_codes.BAD_USAGE
