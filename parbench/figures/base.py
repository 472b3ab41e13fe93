"""What a figure is."""

from dataclasses import dataclass
from typing import Literal

from parbench import text

Unit = Literal[
    "tokens/s", "s", "×", "%", "bytes", "perplexity", "nats", "models/h", "sequences", "calls", "tolerances", "steps"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure's name, title, unit, which direction is better, and its meaning in a sentence.

    `ideal` is the column of the table that holds what theory would have it be, and `ideal_meaning` says which theory.
    """

    name: str
    title: str
    unit: Unit
    better: Literal["higher", "lower"] | None
    meaning: str
    ideal: str | None = None
    ideal_meaning: str = ""

    def shown(self, value: object) -> str:
        """A value of it as every table, chart and page writes it; `–` where it is unknown."""
        return text.with_unit(value, self.unit)
