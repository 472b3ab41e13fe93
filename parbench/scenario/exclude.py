"""What leaves cells out of a matrix: a scenario's rules, and the globs of `--only`."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from parbench.errors import UsageError

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


def is_chosen(cell_id: str, globs: Sequence[str]) -> bool:
    """Whether `--only` means this cell: one of its globs matches, or there are none."""
    return not globs or any(fnmatchcase(cell_id, glob) for glob in globs)


def require_matches(globs: Sequence[str], cell_ids: Sequence[str]) -> None:
    """Raises `UsageError` for a glob of `--only` that matches no cell."""
    for glob in globs:
        if not any(fnmatchcase(cell_id, glob) for cell_id in cell_ids):
            raise UsageError(f"--only {glob}: no cell's id matches; the cells are {', '.join(cell_ids)}")


def _matches(value: Any, wanted: Any) -> bool:
    return fnmatchcase(value, wanted) if isinstance(value, str) else bool(value == wanted)
