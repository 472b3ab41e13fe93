"""A workload that a parbench of another version has written, without the fields that this one does not know.

The worker is strict, as a scenario is: a field that it dropped might decide what is measured. Only the side that wrote
the workload can tell that one says nothing, because it has its default.
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
    """The workload as it is here, and the fields that are not known here. Raises `Unsupported` where it cannot be."""
    family = FAMILIES[content["model"]["kind"]]
    model, of_model = _fit(lambda each: family.model_validate(each, context={"folder": folder}), content["model"])
    workload, unknown = _fit(WorkloadSpec.model_validate, {**content, "model": model})
    return workload, (*(f"model.{field}" for field in of_model), *unknown)


def _fit(validate: Callable[[dict[str, Any]], T], content: dict[str, Any]) -> tuple[T, list[str]]:
    """What `validate` makes of the content once all fields are out that it does not know, and these."""
    left = deepcopy(content)
    unknown: list[str] = []
    while True:
        try:
            return validate(left), unknown
        except ValidationError as error:
            details = error.errors(include_url=False)
            extra = [each["loc"] for each in details if each["type"] == "extra_forbidden"]
            if not extra:
                field = ".".join(map(str, details[0]["loc"]))
                raise Unsupported(f"{field}: {details[0]['msg']}", field=field) from None
            unknown += [_take_out(left, path) for path in extra]


def _take_out(content: dict[str, Any], path: tuple[int | str, ...]) -> str:
    """Removes a field and names it. Paths in pydantic's errors also have the tags of unions, which are no keys."""
    names = []
    for part in path[:-1]:
        if part in content:
            names.append(str(part))
            content = content[str(part)]
    del content[str(path[-1])]
    return ".".join([*names, str(path[-1])])
