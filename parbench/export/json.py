"""JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from parbench.text import CONTROL_CHARACTERS


def to_json(table: pd.DataFrame) -> str:
    """A list of rows; unknown figures are null."""
    rows = [as_json(row) for row in table.to_dict(orient="records")]
    text = json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return CONTROL_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row of the table as JSON has it: an unknown or infinite figure is null."""
    return {str(key): _json_value(value) for key, value in row.items()}


def _json_value(value: object) -> object:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
