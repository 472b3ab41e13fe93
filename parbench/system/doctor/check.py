"""One check of the doctor: what it is about, how bad its result is, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """The result of a check; `state` says how the machine is, `advice` what to do."""

    topic: str
    level: Level
    state: str
    advice: str | None = None


def warn_if(is_bad: bool, topic: str, state: str, advice: str) -> Check:
    """A warning with advice where the state is bad, else `ok` without."""
    return Check(topic, "warning", state, advice) if is_bad else Check(topic, "ok", state)


def list_numbers(numbers: Iterable[int]) -> str:
    """The numbers in order, with commas between."""
    return ", ".join(map(str, sorted(numbers)))
