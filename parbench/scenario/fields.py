"""Metadata of fields: shorthands that people may write, and the sentence for a value that does not fit.

Each class changes validation and JSON Schema together, so that the two cannot disagree.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidatorFunctionWrapHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from parbench.scenario.sentences import quote


@dataclass(frozen=True)
class Expect:
    """Refuses a value that does not validate with `sentence` and the value, in place of pydantic's words.

    Mistakes inside the value keep their own sentences, unless it is judged as a `whole`.
    """

    sentence: str
    whole: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._validate, handler(source))

    def _validate(self, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            if not self.whole and any(detail["loc"] for detail in error.errors(include_url=False)):
                raise
            raise ValueError(f"{self.sentence}; got {quote(value)}") from None


@dataclass(frozen=True)
class OneOrMany:
    """Lets people write a single value of type `of` where the field holds a tuple; `distinct` values differ."""

    of: type
    distinct: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = core_schema.no_info_before_validator_function(self._to_list, handler(source))
        return core_schema.no_info_after_validator_function(_require_distinct, schema) if self.distinct else schema

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = {"minItems": 1, **handler(schema), **({"uniqueItems": True} if self.distinct else {})}
        return {"anyOf": [many["items"], many]}

    def _to_list(self, value: Any) -> Any:
        return [value] if isinstance(value, self.of) else value


class OrEmpty:
    """Lets people write a key with nothing behind it, which counts as an empty mapping, or as an empty list."""

    def __init__(self, empty: type[dict[str, Any]] | type[list[Any]] = dict) -> None:
        self.empty = empty

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._fill, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "null"}]}

    def _fill(self, value: Any) -> Any:
        return self.empty() if value is None else value


class OrWord:
    """Lets people write a word instead of a value: `OrWord(none=False)` takes `none` for False."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._look_up, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "enum": [*self.values]}, handler(schema)]}

    def _look_up(self, value: Any) -> Any:
        return self.values.get(value, value) if isinstance(value, str) else value


def _require_distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("values must differ from each other")
    return values
