"""Sentences made of parts, so that a terminal writes names as they are and a page writes them as code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from parbench.text import plain

Kind = Literal["fastest", "memory", "frontier", "losers", "unjudged"]


@dataclass(frozen=True)
class Name:
    """A name from a scenario: it may be any text."""

    text: str


Part = str | Name
Phrase = tuple[Part, ...]
"""A part of a sentence. Its strings are parbench's own words."""


@dataclass(frozen=True)
class Line:
    """A sentence of a verdict, and what it is about."""

    kind: Kind
    parts: Phrase

    @property
    def text(self) -> str:
        """The sentence as plain text, without control characters."""
        return "".join(part if isinstance(part, str) else plain(part.text) for part in self.parts)


def phrase(template: str, *values: Part | Phrase) -> Phrase:
    """The words of `template` with a value in the place of each `{}`."""
    first, *words = template.split("{}")
    parts: list[Part] = [first]
    for value, following in zip(values, words, strict=True):
        parts += value if isinstance(value, tuple) else (value,)
        parts.append(following)
    return tuple(part for part in parts if part != "")


def listing(phrases: Sequence[Phrase], limit: int = 3) -> Phrase:
    """Joins phrases as `a, b and c`. Of more than `limit` the last ones are only counted: `a, b and 7 more`."""
    items = list(phrases)
    if len(items) > limit:
        items = [*items[: limit - 1], (f"{len(phrases) - limit + 1} more",)]
    *others, last = items
    return phrase("{} and {}", separated(others, ", "), last) if others else last


def separated(phrases: Sequence[Phrase], separator: str) -> Phrase:
    """The phrases with a separator between them."""
    first, *rest = phrases
    return first + tuple(part for each in rest for part in (separator, *each))


def capitalised(sentence: Phrase) -> Phrase:
    """The sentence with a capital letter, where it begins with parbench's own words."""
    first, *rest = sentence
    return (first[:1].upper() + first[1:] if isinstance(first, str) else first, *rest)
