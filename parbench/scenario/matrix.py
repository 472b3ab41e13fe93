"""The matrix: a list where one value is expected gives a variant for each of its values, in every combination."""

import itertools
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from parbench.scenario.document import DataPath

Variant = tuple[dict[str, Any], dict[str, Any]]


def variant_count(data: Mapping[str, Any], model: type[BaseModel] | None) -> int:
    """How many variants `variants` would yield, without making them."""
    return math.prod(
        sum(variant_count(value, nested) if isinstance(value, Mapping) else 1 for value, nested in values)
        for _, values in _axes(data, model, ())
    )


def variants(data: Mapping[str, Any], model: type[BaseModel] | None) -> Iterator[Variant]:
    """Yields every combination of the lists in `data`: the variant's data, and the values that other variants lack.

    Fields that expect a list by the type in `model` are no axes of the matrix. The values are keyed by the last part of
    the field's path, such as `seq_len`; of mappings in a list, by those of their keys that differ.
    """
    axes = [(path, list(_expand(values))) for path, values in _axes(data, model, ())]
    for combination in itertools.product(*(values for _, values in axes)):
        variant: dict[str, Any] = _copy(data)
        differences: dict[str, Any] = {}
        for (path, values), value in zip(axes, combination, strict=True):
            _put(variant, path, value)
            differences |= _distinct_items(value, values) if isinstance(value, Mapping) else {str(path[-1]): value}
        yield variant, differences


Axis = list[tuple[Any, type[BaseModel] | None]]
"""The values of a list, each with the model that validates it; None where it is no mapping."""


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


def _expand(values: Axis) -> Iterator[Any]:
    """The values, and for a mapping with lists of its own all variants of it."""
    for value, model in values:
        if isinstance(value, Mapping):
            yield from (variant for variant, _ in variants(value, model))
        else:
            yield value


def _distinct_items(value: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """The items of a mapping that are not in all other mappings of the list."""
    others = [other if isinstance(other, Mapping) else {} for other in values]
    return {str(key): item for key, item in value.items() if any(other.get(key) != item for other in others)}


def expects_list(annotation: Any) -> bool:
    """Whether a list is one value of a field of this type."""
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return any(expects_list(part) for part in get_args(annotation))
    return get_origin(annotation) in (list, tuple) or annotation in (list, tuple)


def nested_model(annotation: Any, value: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model that validates `value`. Of a union, the one with most of its literals, then of its keys."""

    def fit(model: type[BaseModel]) -> tuple[int, int]:
        keys = model.model_fields.keys() & value.keys()
        return sum(value[key] in get_args(model.model_fields[key].annotation) for key in keys), len(keys)

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
