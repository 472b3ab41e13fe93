"""What leaves cells out of a matrix: a scenario's rules, and the globs of `--only`."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from parbench.errors import UsageError
from parbench.scenario.fields import Expect, OneOrMany

FIELDS = {
    "workload": str,
    "family": str,
    "strategy": str,
    "label": str,
    "phase": str,
    "precision": str,
    "scaling": str,
    "device_kind": str,
    "devices": int,
    "models": int,
    "global_batch": int,
    "seq_len": int,
    "compile": bool,
    "activation_checkpointing": bool,
    "gradient_accumulation": int,
    "loss_chunks": int,
}
"""The fields of a cell that a rule can name, with the type of their values; text may hold the shell's wildcards."""


class _RuleFields:
    """Metadata that makes a mapping one from `FIELDS` to a value or several; it names one field or more."""

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        fields = {
            name: core_schema.typed_dict_field(handler.generate_schema(_choices(kind)), required=False)
            for name, kind in FIELDS.items()
        }
        rule = core_schema.typed_dict_schema(fields, extra_behavior="forbid")
        return core_schema.no_info_before_validator_function(self._require_fields, rule)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "minProperties": 1}

    def _require_fields(self, rule: Any) -> Any:
        if isinstance(rule, dict) and not rule:
            raise ValueError("names no field")
        return rule


def _choices(kind: type) -> Any:
    return Annotated[
        tuple[Annotated[kind, Strict()], ...],  # type: ignore[valid-type]
        Field(strict=False),
        OneOrMany(kind),
        Expect(f"must be {kind.__name__} or a list", whole=True),
    ]


Rule = Annotated[
    dict[str, tuple[Any, ...]], _RuleFields(), Expect("must be a mapping such as {strategy: ddp, devices: 4}")
]
"""Leaves out the cells that have, in every field that it names, one of the values."""


def is_excluded(cell: Mapping[str, Any], rules: Sequence[Mapping[str, Sequence[Any]]]) -> bool:
    """Whether one of the rules matches the cell, given as the values of `FIELDS`."""
    return any(
        all(any(_matches(cell[field], choice) for choice in choices) for field, choices in rule.items())
        for rule in rules
    )


def is_chosen(cell_id: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs of `--only` matches the cell's id, or there are none."""
    return not globs or any(fnmatchcase(cell_id, glob) for glob in globs)


def require_matches(globs: Sequence[str], cell_ids: Sequence[str]) -> None:
    """Raises `UsageError` for a glob of `--only` that matches no cell."""
    for glob in globs:
        if not any(fnmatchcase(cell_id, glob) for cell_id in cell_ids):
            raise UsageError(f"--only {glob}: no cell's id matches; the cells are {', '.join(cell_ids)}")


def _matches(value: Any, choice: Any) -> bool:
    if isinstance(choice, bool):
        # Where a field has more values than these two, such as ways to save memory, true stands for any of them.
        return bool(value) == choice
    return fnmatchcase(value, choice) if isinstance(value, str) else bool(value == choice)
