"""What a figure is: its words, its formula, how rounds are summarised, who shows it, and how `check` gates it."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from parbench import text
from parbench.figures.statistics import Summary, summarise
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial

Unit = Literal[
    "tokens/s", "s", "×", "%", "bytes", "perplexity", "nats", "models/h", "sequences", "calls", "tolerances", "steps",
    "parameters",
]  # fmt: skip

Place = Literal["table", "terminal", "terminal always", "charts"]


@dataclass(frozen=True)
class Launch:
    """One good trial of a cell, and what a figure may relate it to.

    `base` is the launch, in the same round, of the cell that ratios are over, if there is one. `peak_flops` is one
    accelerator's peak in operations a second, where it is known.
    """

    trial: Trial
    cell: CellRecord
    base: "Launch | None" = None
    peak_flops: float | None = None


def on_every_cell(_: CellRecord) -> bool:
    """Every cell has the figure."""
    return True


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure, defined once for tables, exports, charts, glossary, checks and the schema of scenarios.

    name: the column in tables, the key in JSON and baselines, the metric in a scenario's `check` section.
    title, unit, meaning: what people read; `better` is None where neither direction is.
    of: the formula for one launch; None where a launch lacks what it needs. Without a formula the parity gate gives it.
    over_rounds: how a cell's launches are summarised; `interval` adds columns for the 95 % interval.
    shown_in: the table, the terminal's table (where a cell has a value, or always), a plain chart of the report.
    gate: how `check` compares it: `exact` must not change, `relative` may not get worse by more than a margin.
    gated_on: which cells `check` compares it on: a cell's ratio to itself says nothing.
    portable: whether it means the same on another machine, as ratios and counts do.
    ideal: the column with what theory would have it be; `ideal_meaning` says which theory.
    """

    name: str
    title: str
    unit: Unit
    better: Literal["higher", "lower"] | None
    meaning: str
    of: Callable[[Launch], float | None] | None = None
    over_rounds: Literal["median", "geometric mean"] = "median"
    interval: bool = False
    shown_in: tuple[Place, ...] = ("table", "terminal", "charts")
    gate: Literal["exact", "relative", "none"] = "none"
    gated_on: Callable[[CellRecord], bool] = on_every_cell
    portable: bool = False
    ideal: str | None = None
    ideal_meaning: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns in a table: the value, the ends of its interval, and the ideal."""
        ends = (f"{self.name}_ci_low", f"{self.name}_ci_high") if self.interval else ()
        return (self.name, *ends, *([self.ideal] if self.ideal else []))

    def summarise(self, launches: Iterable[Launch]) -> Summary:
        """Its value over the launches that have one; NaN where none has.

        Raises `ValueError` for a geometric mean of values that are not positive.
        """
        values = [value for launch in launches if self.of and (value := self.of(launch)) is not None]
        if not values:
            return Summary(math.nan, None, None)
        return Summary(statistics.median(values), None, None) if self.over_rounds == "median" else summarise(values)

    def gated_values(self, launches: Mapping[int, Launch]) -> dict[int, float]:
        """What `check` compares, by round: ratios are formed of it, so zero counts only where it must not change."""
        values = {
            number: float(value)
            for number, launch in launches.items()
            if self.of and self.gated_on(launch.cell) and (value := self.of(launch)) is not None
        }
        return {number: value for number, value in values.items() if value > 0 or (value == 0 and self.gate == "exact")}

    def text(self, value: object) -> str:
        """A value as every table, chart and page writes it; `–` where it is unknown."""
        return text.with_unit(value, self.unit)

    def with_interval(self, row: Mapping[Any, Any]) -> str:
        """Its value in a table's row, with the confidence interval where it has one: `1.93× [1.91, 1.95]`."""
        low, high = row.get(f"{self.name}_ci_low"), row.get(f"{self.name}_ci_high")
        value = self.text(row[self.name])
        if not text.is_number(row[self.name]) or not text.is_number(low) or low == high:
            return value
        unit = value.lstrip("0123456789.,")
        return f"{value} [{self.text(low).removesuffix(unit)}, {self.text(high).removesuffix(unit)}]"
