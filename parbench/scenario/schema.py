"""The JSON Schema of a scenario file, for editors. pydantic makes it from the models that validate scenarios."""

import functools
import operator
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from parbench.scenario.loader import Catalogue
from parbench.scenario.specs import MAX_NAME, Scenario, Section, Text, WorkloadSpec


def scenario_schema(catalogue: Catalogue) -> JsonSchemaValue:
    """The schema of what the loader accepts, as far as one value's validity does not depend on another's.

    One thing is narrower: `kind` and `source` take no list, because they decide which keys may stand beside them; a
    list of whole mappings says the same.
    """
    schema = _file_model(catalogue).model_json_schema(schema_generator=_MatrixSchema)
    return {"$schema": _MatrixSchema.schema_dialect, **schema}


def _file_model(catalogue: Catalogue) -> type[Scenario]:
    """The scenario as it is written: with the model families and the strategies of the catalogue."""
    family: Any = functools.reduce(operator.or_, catalogue.families.values())
    model: Any = Annotated[family, Field(discriminator="kind")]
    workload: Any = create_model(
        WorkloadSpec.__name__, __base__=WorkloadSpec, __doc__=WorkloadSpec.__doc__, model=(model, ...)
    )
    name: Any = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    workloads: Any = Annotated[dict[name, workload], Field(min_length=1)]
    strategy: Any = Literal[tuple(catalogue.options)] | Annotated[Any, _NameWithOptions(catalogue)]
    strategies: Any = Annotated[list[strategy], Field(min_length=1)]
    return create_model(
        Scenario.__name__,
        __base__=Scenario,
        __doc__=Scenario.__doc__,
        name=(Text, Field(default_factory=str)),
        workloads=(workloads, ...),
        strategies=(strategies, ...),
    )


class _NameWithOptions:
    """Metadata of a mapping from one strategy's name to its options, or to nothing."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.options = catalogue.options

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.typed_dict_schema(
            {
                name: core_schema.typed_dict_field(handler.generate_schema(options | None), required=False)
                for name, options in self.options.items()
            },
            extra_behavior="forbid",
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "minProperties": 1, "maxProperties": 1}


class _MatrixSchema(GenerateJsonSchema):
    """pydantic's generator with the grammar's two rules: lists make a matrix, and tags have to be written.

    A tag is the key that decides which of several models is meant. Its field has a default, and one possible value.
    """

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        json_schema = super().model_schema(schema)
        if issubclass(schema["cls"], Section):
            return json_schema
        properties = json_schema.get("properties", {})
        tags = {name for name, value in properties.items() if "const" in value}
        for name, value in properties.items():
            if name not in tags and not _takes_list(value):
                properties[name] = _or_list(value)
        if tags:
            json_schema["required"] = sorted({*tags, *json_schema.get("required", ())})
        return json_schema

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Without `discriminator`, which is OpenAPI's and not JSON Schema's."""
        json_schema = super().tagged_union_schema(schema)
        json_schema.pop("discriminator", None)
        return json_schema


def _takes_list(schema: JsonSchemaValue) -> bool:
    return schema.get("type") == "array" or any(map(_takes_list, schema.get("anyOf", ())))


def _or_list(schema: JsonSchemaValue) -> JsonSchemaValue:
    """One value or a list of them. What describes the value stays on the outside, where editors look for it."""
    description: JsonSchemaValue = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    value = {key: part for key, part in schema.items() if key not in description}
    return {**description, "anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}
