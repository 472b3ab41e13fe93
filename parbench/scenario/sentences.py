"""Parts of the sentences that tell what is wrong with a scenario, or another file that people may edit."""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

MAX_QUOTE = 60


def unknown_key(key: str, known_keys: Iterable[str]) -> str:
    """The sentence for a key that cannot stand here."""
    return f"unknown key{suggest(key, known_keys)}"


def suggest(name: str, candidates: Iterable[str]) -> str:
    """The candidate that was probably meant by `name`, or else all of them, as the end of a sentence."""
    names = list(candidates)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(names) or 'none'}"


def quote(value: Any) -> str:
    """A value for a sentence: text in quotes, and at most about `MAX_QUOTE` characters."""
    text = repr(value)
    return text if len(text) <= MAX_QUOTE else f"{text[: MAX_QUOTE - 3]}…"


def explain(detail: ErrorDetails) -> str:
    """The sentence for an error of pydantic's: what the value must be, and what it is."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return "is required"
        case "union_tag_not_found":
            return f"needs the key {context['discriminator']}"
        case "union_tag_invalid":
            return f"{context['discriminator']} must be one of {context['expected_tags']}; got {quote(context['tag'])}"
        case "value_error":
            return str(context["error"])
        case "model_type" | "model_attributes_type":
            return f"must be a mapping; got {quote(detail['input'])}"
        case "tuple_type":
            return f"must be a list; got {quote(detail['input'])}"
        case _:
            # pydantic's sentences read "Input should be …", "String should match …", "Tuple should have …".
            subject, should, expectation = detail["msg"].partition(" should ")
            sentence = f"must {expectation.replace('be a valid ', 'be ', 1)}" if should else subject
            return f"{sentence}; got {quote(detail['input'])}"
