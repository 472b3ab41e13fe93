"""What a figure is."""

from dataclasses import dataclass
from typing import Literal

from parbench import text
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial

Unit = Literal[
    "tokens/s", "s", "×", "%", "bytes", "perplexity", "nats", "models/h", "sequences", "calls", "tolerances", "steps"
]  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One good trial of a cell, what one device can do at most (operations a second, where that is known), and in the
    same round the launch of the cell that ratios are over, if there is one.
    """

    trial: Trial
    cell: CellRecord
    base: "Launch | None" = None
    peak_flops: float | None = None


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
        return text.shown(value, self.unit)
