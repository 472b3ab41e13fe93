"""A list where one value is expected makes a matrix: every combination becomes a variant of its own."""

import itertools
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from parbench.scenario.document import DataPath

Variant = tuple[dict[str, Any], dict[str, Any]]


def variant_count(data: Mapping[str, Any], model: type[BaseModel] | None) -> int:
    """How many variants there are, without making them."""
    return math.prod(
        sum(variant_count(value, nested) if isinstance(value, Mapping) else 1 for value, nested in values)
        for _, values in _axes(data, model, ())
    )


def variants(data: Mapping[str, Any], model: type[BaseModel] | None) -> Iterator[Variant]:
    """Every combination of the lists in `data`, as (data of the variant, what tells it from the others).

    `model` says which fields expect a list of their own; those are left as they are. What tells variants apart is
    keyed by the last part of the field's path, such as `seq_len`; of mappings in a list, by the keys that differ.
    """
    axes = [(path, list(_expanded(values))) for path, values in _axes(data, model, ())]
    for combination in itertools.product(*(values for _, values in axes)):
        variant: dict[str, Any] = _copy(data)
        told: dict[str, Any] = {}
        for (path, values), value in zip(axes, combination, strict=True):
            _put(variant, path, value)
            told |= _differences(value, values) if isinstance(value, Mapping) else {str(path[-1]): value}
        yield variant, told


Axis = list[tuple[Any, type[BaseModel] | None]]
"""The values of a list, each with the model that validates it where it is a mapping."""


def _axes(data: Mapping[str, Any], model: type[BaseModel] | None, path: DataPath) -> Iterator[tuple[DataPath, Axis]]:
    for key, value in data.items():
        annotation = model.model_fields[key].annotation if model and key in model.model_fields else None
        if isinstance(value, Mapping):
            yield from _axes(value, nested_model(annotation, value), (*path, key))
        elif isinstance(value, list) and value and not expects_list(annotation):
            yield (
                (*path, key),
                [(each, nested_model(annotation, each) if isinstance(each, Mapping) else None) for each in value],
            )


def _expanded(values: Axis) -> Iterator[Any]:
    """The values, and for a mapping with lists of its own all variants of it."""
    for value, model in values:
        if isinstance(value, Mapping):
            yield from (variant for variant, _ in variants(value, model))
        else:
            yield value


def _differences(value: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """What of a mapping is not the same in all others."""
    others = [other if isinstance(other, Mapping) else {} for other in values]
    return {str(key): each for key, each in value.items() if any(other.get(key) != each for other in others)}


def expects_list(annotation: Any) -> bool:
    """Whether a field of this type takes a list as its one value."""
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return any(expects_list(part) for part in get_args(annotation))
    return get_origin(annotation) in (list, tuple) or annotation in (list, tuple)


def nested_model(annotation: Any, value: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model that validates `value`: of several, the one whose literals it has, or that knows most of its keys."""

    def fit(model: type[BaseModel]) -> tuple[int, int]:
        known = model.model_fields.keys() & value.keys()
        return sum(value[key] in get_args(model.model_fields[key].annotation) for key in known), len(known)

    return max(_models(annotation), key=fit, default=None)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _copy(data: Any) -> Any:
    return {key: _copy(value) for key, value in data.items()} if isinstance(data, Mapping) else data


def _put(data: dict[str, Any], path: DataPath, value: Any) -> None:
    for key in path[:-1]:
        data = data[str(key)]
    data[str(path[-1])] = value
