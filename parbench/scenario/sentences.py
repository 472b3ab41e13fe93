"""Parts of the sentences that tell what is wrong with a scenario."""

import difflib
from collections.abc import Iterable
from typing import Any

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
