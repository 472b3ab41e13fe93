"""The server for a tree from before the protocol, which has no `parbench.remote` to serve itself with.

It is handed to that tree's interpreter as text, imports only what every such tree has, and says what `server` says. The
records of those trees forbid fields that they do not know, so it takes these out of a trial's `cell.json` first.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from parbench import __version__
from parbench.environment import capture
from parbench.errors import ParbenchError
from parbench.launch.local import LocalLauncher
from parbench.results.trial import Assignment
from parbench.scenario import WorkloadSpec
from parbench.strategies.base import STRATEGIES
from parbench.workloads.base import FAMILIES

T = TypeVar("T")

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with(parent: int) -> None:
    """Has the kernel end this process with its parent: whoever waits for a trial does not see its input end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        sys.exit(2)


def serve() -> None:
    """An introduction, a greeting, then a reply to every request, a JSON line each, until input ends."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a plug-in prints is no reply

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=replies, flush=True)

    say({"parbench": __version__, "oldest": 1, "newest": 1})
    sys.stdin.readline()  # the parbench that handed this over speaks what this speaks
    launcher = LocalLauncher()
    try:
        launcher.start()
        say(greet())
        for line in sys.stdin:
            request = json.loads(line)
            try:
                say(launch(request, launcher) if request["kind"] == "launch" else examine(request))
            except ParbenchError as error:
                say({"kind": "refusal", "reason": str(error)})
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        launcher.close()


def greet() -> dict[str, Any]:
    """What is here."""
    for registry in (STRATEGIES, FAMILIES):
        registry.names()
    fields = Assignment.model_fields
    return {
        "environment": capture().model_dump(mode="json"),
        "modules": module_files(),
        "required": [name for name, field in fields.items() if field.is_required()],
        "purposes": get_args(fields["purpose"].annotation),
    }


def launch(request: dict[str, Any], launcher: LocalLauncher) -> dict[str, Any]:
    """How a trial ended."""
    folder = Path(request["folder"])
    content = json.loads((folder / "cell.json").read_text())
    assignment, _ = fit(lambda each: Assignment.model_validate_json(json.dumps(each)), content)
    workload, _ = fit_workload(assignment.workload, getattr(assignment, "folder", "."))
    assignment = assignment.model_copy(update={"workload": workload.model_dump(mode="json")})
    (folder / "cell.json").write_text(assignment.model_dump_json(indent=2))
    outcome = launcher.launch(folder, processes=request["processes"], deadline_s=request["deadline_s"])
    return {"kind": "launch", **asdict(outcome)}


def examine(request: dict[str, Any]) -> dict[str, Any]:
    """Every model as it is found here, or why it cannot be built, and the fields that are not known here."""
    models, refusals, unknown = {}, {}, {}
    for name, content in request["workloads"].items():
        try:
            workload, unknown[name] = fit_workload(content, request["folder"])
            model = workload.model.examined(workload.vocab_size, workload.seq_len)
            models[name] = model.model_dump(mode="json")
        except (ParbenchError, ValidationError) as error:
            refusals[name] = str(error)
    return {
        "kind": "examine",
        "models": models,
        "refusals": refusals,
        "unknown": unknown,
        "modules": module_files(),
    }


def fit_workload(content: dict[str, Any], folder: str) -> tuple[WorkloadSpec, list[str]]:
    """The workload as it is here, and the fields that are not known here."""
    family = FAMILIES[content["model"]["kind"]]
    model, of_model = fit(lambda each: family.model_validate(each, context={"folder": folder}), content["model"])
    workload, unknown = fit(WorkloadSpec.model_validate, {**content, "model": model})
    return workload, [*(f"model.{field}" for field in of_model), *unknown]


def fit(validate: Callable[[dict[str, Any]], T], content: dict[str, Any]) -> tuple[T, list[str]]:
    """What `validate` makes of the content once all fields are out that it does not know, and these."""
    unknown: list[str] = []
    while True:
        try:
            return validate(content), unknown
        except ValidationError as error:
            extra = [each["loc"] for each in error.errors() if each["type"] == "extra_forbidden"]
            if not extra:
                raise
            unknown += [take_out(content, path) for path in extra]


def take_out(content: dict[str, Any], path: tuple[int | str, ...]) -> str:
    """Removes a field and names it. Paths in pydantic's errors also have the tags of unions, which are no keys."""
    names = []
    for part in path[:-1]:
        if part in content:
            names.append(str(part))
            content = content[str(part)]
    del content[str(path[-1])]
    return ".".join([*names, str(path[-1])])


def module_files() -> list[str]:
    """The files of all modules that are imported."""
    return [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    serve()
