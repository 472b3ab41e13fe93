"""Reads a workload that another version of parbench has written: fields that this version lacks are taken out.

The worker is strict, because a field that it ignored might change what is measured. So the fields that are taken out
are reported to the other side, which checks that they have their default values there.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

from pydantic import ValidationError

from parbench.errors import Unsupported
from parbench.models.base import FAMILIES
from parbench.scenario.specs import WorkloadSpec

T = TypeVar("T")


def fit_workload(content: dict[str, Any], folder: str) -> tuple[WorkloadSpec, tuple[str, ...]]:
    """The workload, and the fields that this version lacks. Raises `Unsupported` if the rest is not valid here."""
    family = FAMILIES[content["model"]["kind"]]
    model, of_model = _fit(lambda each: family.model_validate(each, context={"folder": folder}), content["model"])
    workload, unknown = _fit(WorkloadSpec.model_validate, {**content, "model": model})
    return workload, (*(f"model.{field}" for field in of_model), *unknown)


def _fit(validate: Callable[[dict[str, Any]], T], content: dict[str, Any]) -> tuple[T, list[str]]:
    """The result of `validate` on the content without the fields that it forbids, and the names of these fields."""
    rest = deepcopy(content)
    unknown: list[str] = []
    while True:
        try:
            return validate(rest), unknown
        except ValidationError as error:
            details = error.errors(include_url=False)
            extra = [each["loc"] for each in details if each["type"] == "extra_forbidden"]
            if not extra:
                field = ".".join(map(str, details[0]["loc"]))
                raise Unsupported(f"{field}: {details[0]['msg']}", field=field) from None
            unknown += [_take_out(rest, path) for path in extra]


def _take_out(content: dict[str, Any], path: tuple[int | str, ...]) -> str:
    """Removes a field and returns its name. Paths in pydantic's errors contain tags of unions, which are not keys."""
    names = []
    for part in path[:-1]:
        if part in content:
            names.append(str(part))
            content = content[str(part)]
    del content[str(path[-1])]
    return ".".join([*names, str(path[-1])])
