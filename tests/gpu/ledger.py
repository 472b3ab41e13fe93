"""A ledger of steps that each claim something and measure something, within a budget of seconds."""

import json
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

State = Literal["holds", "fails", "broke", "skipped"]


@dataclass(frozen=True)
class Claim:
    """Something that must hold, whether it does, and the figures that say so."""

    what: str
    holds: bool
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Where steps leave their files, and when the budget ends."""

    out: Path
    ends_at: float

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return max(0.0, self.ends_at - time.monotonic())

    def until_a_part_is_over(self, parts: int) -> "Bench":
        """The same place, until the first of so many equal parts of what is left is over."""
        return replace(self, ends_at=time.monotonic() + self.left_s / parts)


@dataclass(frozen=True)
class Step:
    """A step of the ledger; it is skipped where less than `needs_s` seconds are left."""

    name: str
    needs_s: float
    run: Callable[[Bench], Iterable[Claim]]


@dataclass
class Entry:
    """What came of a step."""

    name: str
    state: State
    seconds: float = 0.0
    claims: list[Claim] = field(default_factory=list)
    error: str = ""


class Ledger:
    """Takes steps one after another, and writes what is known to `acceptance.json` after each claim."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.entries: list[Entry] = []

    def take(self, steps: Iterable[Step]) -> bool:
        """Takes all steps that fit; whether none of them failed or broke."""
        for step in steps:
            entry = Entry(step.name, "skipped")
            self.entries.append(entry)
            if self.bench.left_s >= step.needs_s:
                self._take(step, entry)
            self.write()
            print(
                f"{entry.state:8} {entry.seconds:6.1f} s  {entry.name}",
                *_failures(entry),
                sep="\n         ",
                flush=True,
            )
        return all(entry.state in ("holds", "skipped") for entry in self.entries)

    def _take(self, step: Step, entry: Entry) -> None:
        started = time.monotonic()
        try:
            for claim in step.run(self.bench):
                entry.claims.append(claim)
                self.write()
            entry.state = "holds" if all(claim.holds for claim in entry.claims) and entry.claims else "fails"
        except Exception:  # noqa: BLE001 - a step that breaks must not cost the others their turn
            entry.state, entry.error = "broke", traceback.format_exc()
        entry.seconds = round(time.monotonic() - started, 1)

    def write(self) -> None:
        """Writes all entries, whole or not at all."""
        text = json.dumps([asdict(entry) for entry in self.entries], indent=1, default=str)
        half = self.bench.out / "acceptance.json.tmp"
        half.write_text(text + "\n")
        half.replace(self.bench.out / "acceptance.json")


def _failures(entry: Entry) -> Iterable[str]:
    yield from (claim.what for claim in entry.claims if not claim.holds)
    if entry.error:
        yield entry.error.strip().splitlines()[-1]
