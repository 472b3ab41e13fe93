"""Rules that leave cells out of a matrix."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

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
}
"""What a rule can name, and the type of its values; text may hold the shell's wildcards."""

Rule = Mapping[str, Sequence[Any]]


def is_excluded(values: Mapping[str, Any], rules: Sequence[Rule]) -> bool:
    """Whether some rule has, for every field that it names, a value that matches the cell's."""
    return any(
        all(any(_matches(values[field], wanted) for wanted in choices) for field, choices in rule.items())
        for rule in rules
    )


def _matches(value: Any, wanted: Any) -> bool:
    return fnmatchcase(value, wanted) if isinstance(value, str) else bool(value == wanted)
