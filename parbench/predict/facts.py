"""What is known of the software behind a published row and stands in no column of it."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from ruamel.yaml import YAML

from parbench.predict.rows import PUBLISHED, Row


def with_facts(row: Row) -> tuple[Row, tuple[str, ...]]:
    """The row with its blanks filled from what is known of its source, and which columns those are."""
    facts = _facts_of(row)
    filled = {column: str(value) for column, value in facts.items() if not row.text(column)}
    return Row({**row.texts, **filled}, row.fold), tuple(sorted(filled))


def _facts_of(row: Row) -> Mapping[str, Any]:
    facts: dict[str, Any] = {}
    for entry in _entries():
        fits = (
            entry["repository"] == row.repository
            and re.fullmatch(entry.get("models", ".*"), row.text("model"))
            and re.fullmatch(entry.get("gpus", ".*"), row.text("gpu"))
        )
        if fits:
            facts = {**entry["facts"], **facts}
    return facts


@cache
def _entries() -> list[dict[str, Any]]:
    text = resources.files(PUBLISHED).joinpath("sources.yaml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = YAML(typ="safe", pure=True).load(text)
    return entries
