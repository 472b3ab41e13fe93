"""Validates parts of a document with pydantic's models; every error becomes a mistake with its line and a sentence."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from parbench.base_types import Spec
from parbench.errors import Mistake
from parbench.scenario.document import DataPath, Document
from parbench.scenario.exclude import FIELDS
from parbench.scenario.matrix import nested_model
from parbench.scenario.sentences import explain, unknown_key
from parbench.scenario.specs import Scenario

S = TypeVar("S", bound=Spec)


class Validator:
    """Validates parts of `document` and collects their `mistakes`.

    Models resolve relative paths against `folder`, which pydantic passes to them as `context["folder"]`.
    """

    def __init__(self, document: Document, folder: Path, mistakes: list[Mistake]) -> None:
        self.document = document
        self.folder = folder
        self.mistakes = mistakes

    def validate(self, model: type[S], data: Any, path: DataPath) -> S | None:
        """The model of `data`, which stands at `path` of the document; None if it has mistakes."""
        try:
            return model.model_validate(data, context={"folder": self.folder})
        except ValidationError as error:
            self._collect(error.errors(include_url=False), model, data, path)
            return None

    def validate_scenario(self, data: dict[str, Any], defaults: dict[str, Any]) -> Scenario:
        """The scenario of `data`, in which a key with mistakes counts as left out."""
        context = {"folder": self.folder}
        try:
            return Scenario.model_validate({**defaults, **data}, context=context)
        except ValidationError as error:
            details = error.errors(include_url=False)
        self._collect(details, Scenario, data, ())
        keys_with_mistakes = {detail["loc"][0] for detail in details}
        valid = {key: value for key, value in data.items() if key not in keys_with_mistakes}
        return Scenario.model_validate({**defaults, **valid}, context=context)

    def _collect(self, details: Sequence[ErrorDetails], model: type[Spec], data: Any, path: DataPath) -> None:
        for detail in details:
            place = self._locate(path, detail)
            self.mistakes.append(self.document.mistake(place, _explain(detail, model, data)))

    def _locate(self, path: DataPath, detail: ErrorDetails) -> DataPath:
        """The error's path in the document. pydantic's locations also name branches of unions, which are left out."""
        for step in detail["loc"]:
            longer = (*path, step)
            if self.document.holds(longer):
                path = longer
        if detail["type"] in ("missing", "extra_forbidden") and path[-1:] != detail["loc"][-1:]:
            path = (*path, detail["loc"][-1])
        return path


def _explain(detail: ErrorDetails, model: type[Spec], data: Any) -> str:
    """The sentence for an error: what the value must be, and what it is."""
    if detail["type"] == "extra_forbidden":
        return unknown_key(str(detail["loc"][-1]), _keys_at(model, data, detail["loc"][:-1]))
    return explain(detail)


def _keys_at(model: type[Spec], data: Any, location: tuple[int | str, ...]) -> Iterable[str]:
    """The keys that a mapping at `location` may have."""
    if model is Scenario and location[:1] == ("exclude",):
        return FIELDS
    current: Any = model
    for step in location:
        if isinstance(data, dict) and step in data and step in current.model_fields:
            data = data[step]
            current = nested_model(current.model_fields[step].annotation, data) or current
    return list(current.model_fields)
