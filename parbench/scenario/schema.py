"""The JSON Schema of a scenario file, for editors: made of the models that read it and of all that it can name."""

from collections.abc import Iterable
from inspect import getdoc
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from parbench.base_types import Scaling
from parbench.models.base import Family
from parbench.scenario.exclude import FIELDS
from parbench.scenario.loader import MAX_NAME, MAX_TEXT, Catalogue
from parbench.scenario.specs import CheckSpec, DevicesSpec, MeasureSpec, Scenario, WorkloadSpec

Schema = dict[str, Any]


_NAME = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}


_TEXT = {"type": "string", "maxLength": MAX_TEXT}


def scenario_schema(catalogue: Catalogue) -> Schema:
    """What the loader accepts, as far as it can be said without relating one value to another.

    One thing is narrower: `kind` and `source` take no list, because they decide which keys may stand beside them; a
    list of whole mappings says the same.
    """
    families, options = catalogue.families.values(), catalogue.options.values()
    definitions = _Definitions([CheckSpec, DevicesSpec, MeasureSpec, Family, WorkloadSpec, *families, *options])
    definitions.of(WorkloadSpec)["properties"]["model"] = {
        "oneOf": [definitions.reference(family) for family in families],
        "discriminator": {"propertyName": "kind"},
    }
    definitions.drop(Family)
    definitions.require_tags()
    definitions.accept_matrices(besides=(CheckSpec, DevicesSpec, MeasureSpec))
    counts = definitions.of(DevicesSpec)["properties"]["counts"]["anyOf"]
    counts += [alternative["items"] for alternative in counts if _takes_list(alternative)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": Scenario.__name__,
        "description": getdoc(Scenario),
        "type": "object",
        "properties": {
            "name": _TEXT,
            "description": _TEXT,
            "workloads": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": _NAME,
                "additionalProperties": definitions.reference(WorkloadSpec),
            },
            "strategies": {"type": "array", "minItems": 1, "items": _strategy(catalogue, definitions)},
            "devices": _or_nothing(definitions.reference(DevicesSpec)),
            "scaling": _or_list({"enum": list(get_args(Scaling))}, uniqueItems=True),
            "exclude": _or_nothing({"type": "array", "items": _rule()}),
            "measure": _or_nothing(definitions.reference(MeasureSpec)),
            "check": _or_nothing(definitions.reference(CheckSpec)),
        },
        "required": ["workloads", "strategies"],
        "additionalProperties": False,
        "$defs": definitions.schemas,
    }


class _Definitions:
    """The schemas of models and of all that they hold, by name."""

    def __init__(self, models: Iterable[type[BaseModel]]) -> None:
        inputs = [(model, "validation") for model in dict.fromkeys(models)]
        self._references, schema = models_json_schema(inputs)  # type: ignore[arg-type]
        self.schemas: dict[str, Schema] = schema["$defs"]
        self._tags: dict[str, str] = {}

    def reference(self, model: type[BaseModel]) -> Schema:
        return dict(self._references[model, "validation"])

    def of(self, model: type[BaseModel]) -> Schema:
        return self.schemas[_name(self.reference(model))]

    def drop(self, model: type[BaseModel]) -> None:
        del self.schemas[_name(self.reference(model))]

    def require_tags(self) -> None:
        """The key that decides which of several models is meant must be written, though each has a default for it."""
        for definition in self.schemas.values():
            for value in definition.get("properties", {}).values():
                tag = value.pop("discriminator", {}).get("propertyName")
                for alternative in value["oneOf"] if tag else ():
                    self._tags[_name(alternative)] = tag
        for name, tag in self._tags.items():
            self.schemas[name]["required"] = sorted({tag, *self.schemas[name].get("required", [])})

    def accept_matrices(self, besides: Iterable[type[BaseModel]]) -> None:
        """A list of values wherever one value is expected, apart from the tags and from models without a matrix."""
        plain = {_name(self.reference(model)) for model in besides}
        for name in self.schemas.keys() - plain:
            properties = self.schemas[name].get("properties", {})
            for key, value in properties.items():
                if key != self._tags.get(name) and not _takes_list(value):
                    properties[key] = _or_list(value)


def _strategy(catalogue: Catalogue, definitions: _Definitions) -> Schema:
    return {
        "anyOf": [
            {"enum": list(catalogue.options)},
            {
                "type": "object",
                "properties": {
                    name: _or_nothing(definitions.reference(options)) for name, options in catalogue.options.items()
                },
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
            },
        ]
    }


def _rule() -> Schema:
    """Fields of a cell, each with a value or several."""
    types = {str: "string", int: "integer", bool: "boolean"}
    fields = {name: _or_list({"type": types[kind]}) for name, kind in FIELDS.items()}
    return {"type": "object", "properties": fields, "minProperties": 1, "additionalProperties": False}


def _takes_list(schema: Schema) -> bool:
    return schema.get("type") == "array" or any(map(_takes_list, schema.get("anyOf", ())))


def _or_list(schema: Schema, **constraints: Any) -> Schema:
    """One value or a list of them; what describes the value stays on the outside, where editors look for it."""
    outside: Schema = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    value = {key: part for key, part in schema.items() if key not in outside}
    return {**outside, "anyOf": [value, {"type": "array", "items": value, "minItems": 1, **constraints}]}


def _or_nothing(schema: Schema) -> Schema:
    """A key with nothing behind it counts as left out."""
    return {"anyOf": [schema, {"type": "null"}]}


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
