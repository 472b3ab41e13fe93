"""The two arms of a comparison: which parbench each one is, and the plan as it understands it."""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parbench.errors import UsageError
from parbench.launch.remote.checkout import Checkout, check_out, import_folders
from parbench.launch.remote.launcher import RemoteLauncher, Tree
from parbench.launch.remote.protocol import Greeting
from parbench.models.base import Family
from parbench.plan.cells import Plan
from parbench.scenario.specs import WorkloadSpec

NOT_SET = object()
"""Stands for the value of a field that the scenario leaves at its default."""


@dataclass(frozen=True)
class Arm:
    """A parbench that measures. With a `checkout`, it must import some code from there."""

    tree: Tree
    checkout: Checkout | None = None

    @property
    def name(self) -> str:
        """Candidate or base."""
        return self.tree.name

    @property
    def is_other(self) -> bool:
        """Whether it may have other code than this process."""
        return self.checkout is not None or self.tree.python != Path(sys.executable)


Arms = tuple[Arm, Arm]
"""The candidate, and the base that it is compared with."""


@contextlib.contextmanager
def arms_against(what: str) -> Iterator[Arms]:
    """The two arms that `--against` names: `git:REF`, `python:PATH` or `itself`. Raises `UsageError`."""
    kind, _, value = what.partition(":")
    if what == "itself":
        yield Arm(Tree("candidate")), Arm(Tree("base"))
    elif kind == "git" and value:
        with check_out(value) as checkout:
            root, tree = checkout
            yield (
                Arm(Tree("candidate", paths=import_folders(root, root))),
                Arm(Tree("base", paths=import_folders(root, tree)), checkout),
            )
    elif kind == "python" and value:
        python = shutil.which(value)
        if python is None:
            raise UsageError(f"--against {what}: there is no interpreter '{value}' that can be started")
        yield Arm(Tree("candidate")), Arm(Tree("base", python=Path(python).absolute()))
    else:
        raise UsageError(f"--against {what}: must be git:REF or python:PATH, such as git:main or python:old/bin/python")


@contextlib.contextmanager
def servers(arms: Arms) -> Iterator[tuple[Mapping[str, RemoteLauncher], Mapping[str, Greeting]]]:
    """A launcher and a greeting of each arm, by its name; both servers import torch at the same time."""
    launchers = {arm.name: RemoteLauncher(arm.tree) for arm in arms}
    try:
        for launcher in launchers.values():
            launcher.start()
        yield launchers, {name: launcher.greet() for name, launcher in launchers.items()}
    finally:
        for launcher in launchers.values():
            launcher.close()


def plan_for(arm: Arm, launcher: RemoteLauncher, greeting: Greeting, plan: Plan) -> Plan:
    """The plan with the arm's own folder, and with users' own models as the arm's code defines them.

    For a parbench that does not know proofs, the cells have none.

    Raises `UsageError` where the arm cannot build a model or does not know a field of a workload, and where it has a
    commit checked out but imports nothing from it.
    """
    if "proof" not in greeting.purposes:
        cells = (replace(cell, record=cell.record.model_copy(update={"proofs": None})) for cell in plan.cells)
        plan = replace(plan, cells=tuple(cells))
    if not arm.is_other:
        return plan
    folder = arm.checkout.locate(plan.folder) if arm.checkout else plan.folder
    workloads = {cell.record.workload: plan.scenario.workloads[cell.record.workload] for cell in plan.runnable}
    reply = launcher.examine(folder, {name: _as_written(workload) for name, workload in workloads.items()})
    if reply.refusals:
        reasons = "; ".join(f"workload {name}: {reason}" for name, reason in reply.refusals.items())
        raise UsageError(f"the {arm.name} cannot build {reasons}; leave it out with --only")
    for name, fields in reply.unknown.items():
        _require_defaults(arm, name, workloads[name], fields)
    _require_own_code(arm, (*greeting.modules, *reply.modules))
    models = {name: _completed(workload.model, reply.models[name], folder) for name, workload in workloads.items()}
    cells = (
        replace(cell, workload=cell.workload.model_copy(update={"model": models[cell.record.workload]}))
        if cell.record.workload in models
        else cell
        for cell in plan.cells
    )
    return replace(plan, folder=folder, cells=tuple(cells))


def _require_defaults(arm: Arm, name: str, workload: WorkloadSpec, fields: Sequence[str]) -> None:
    """Raises `UsageError` for a field that an arm does not know, unless it has its default value."""
    content = workload.model_dump(mode="json", exclude_defaults=True)
    for field in fields:
        value: Any = content
        for part in field.split("."):
            value = value.get(part, NOT_SET) if isinstance(value, dict) else NOT_SET
        if value is not NOT_SET:
            raise UsageError(
                f"the {arm.name} does not know {field} of workload {name}, which is {value}: leave the workload out "
                "with --only, or the field to its default"
            )


def _require_own_code(arm: Arm, modules: Sequence[str]) -> None:
    """Raises `UsageError` where an arm has a commit checked out, but none of its modules comes from there."""
    if arm.checkout and not any(Path(file).is_relative_to(arm.checkout.tree) for file in modules):
        raise UsageError(
            "nothing that this scenario runs comes from this repository, neither a strategy, a model nor parbench: the "
            "commit would be compared with itself. If your package is in it, install it from there (pip install "
            "--editable .); if your model is, name its file in the scenario (build: path/to/file.py:function)"
        )


def _as_written(workload: WorkloadSpec) -> dict[str, Any]:
    """The workload as users write it: without the fields of its model that its examination fills in."""
    content = workload.model_dump(mode="json")
    return {**content, "model": workload.model.model_dump(mode="json", exclude=_filled_in(workload.model))}


def _completed(model: Family, examined: Mapping[str, Any], folder: Path) -> Family:
    """The model with the fields that the arm's examination fills in. Raises `UsageError` where they are invalid."""
    fields = {name: examined.get(name) for name in _filled_in(model)}
    if not fields:
        return model
    try:
        return type(model).model_validate({**model.model_dump(mode="json"), **fields}, context={"folder": folder})
    except ValidationError as error:
        raise UsageError(
            f"the base describes a model of kind {model.kind} in a way that this parbench does not know "
            f"({error.errors()[0]['msg']}): compare with a commit or an installation whose parbench is closer "
            "to this one"
        ) from None


def _filled_in(model: Family) -> set[str]:
    """The fields that are not in the schema: users do not write them, the model's examination fills them in."""
    return {*type(model).model_fields} - {*type(model).model_json_schema()["properties"]}
