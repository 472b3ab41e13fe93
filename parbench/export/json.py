"""JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any

from parbench.export.base import Document, Format
from parbench.text import CONTROL_CHARACTERS


class Json(Format):
    """The data of a document; control characters are escaped, so that it is inert where it is printed."""

    name = "json"
    needs = "data"

    def write(self, document: Document) -> str:
        """Raises `ValueError` for a number that is not finite."""
        text = json.dumps(document.data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return CONTROL_CHARACTERS.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def as_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A mapping as JSON has it: an unknown or infinite number is None."""
    return {str(key): _json_value(value) for key, value in row.items()}


def _json_value(value: object) -> object:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
