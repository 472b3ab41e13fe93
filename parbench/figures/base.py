"""What a figure is: its words, its formula, how rounds are summarised, who shows it, and how `check` gates it."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from parbench import text
from parbench.figures.statistics import RoundId, Summary, mean_of_round, summarise_rounds
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial

Unit = Literal[
    "tokens/s", "s", "×", "%", "bytes", "perplexity", "nats", "models/h", "sequences", "calls", "tolerances", "steps",
    "parameters", "tokens/J", "J", "W", "MHz", "cost", "FLOP",
]  # fmt: skip

Place = Literal["table", "terminal", "terminal always", "charts"]


class Companions(NamedTuple):
    """Launches of what `CompanionsRecord` names; empty where there was none."""

    alone: tuple["Launch", ...] = ()
    together: tuple["Launch", ...] = ()


UNEXPLAINED = Companions()
"""Nothing was launched to explain it."""


@dataclass(frozen=True)
class Launch:
    """One good trial of a cell, and what a figure may relate it to.

    `bases` are the launches, in the same round of the same session, of the cell that ratios are over. `peak_flops` is
    one accelerator's peak in operations a second by its data sheet, `matmul_flops` the rate that matrix products in the
    cell's precision were measured to reach on one device; None where it is not known. `session` numbers the runs that
    are pooled. `companions` are launches of the same round that explain its speed.
    """

    trial: Trial
    cell: CellRecord
    bases: tuple["Launch", ...] = ()
    peak_flops: float | None = None
    session: int = 0
    matmul_flops: float | None = None
    companions: Companions = UNEXPLAINED

    @property
    def round(self) -> RoundId:
        """The round in which it was launched."""
        return RoundId(self.session, self.trial.round)


@dataclass(frozen=True)
class Tag:
    """A word beside a figure's value, such as how it was measured or in which currency it is.

    `name` ends its column's name; `of` gives the word for one launch, None where there is none.
    """

    name: str
    of: Callable[[Launch], str | None]


def on_every_cell(_: CellRecord) -> bool:
    """Every cell has the figure."""
    return True


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure, defined once for tables, exports, charts, glossary, checks and the schema of scenarios.

    name: the column in tables, the key in JSON and baselines, the metric in a scenario's `check` section.
    title, unit, meaning: what people read; `better` is None where neither direction is.
    of: the formula for one launch; None where a launch lacks what it needs. Without a formula the parity gate gives it.
    over_rounds: how a cell's rounds are summarised; `interval` adds columns for the 95 % interval.
    shown_in: the table, the terminal's table (where a cell has a value, or always), a plain chart of the report.
    gate: how `check` compares it: `exact` must not change, `relative` may not get worse by more than a margin.
    gated_on: which cells `check` compares it on: a cell's ratio to itself says nothing.
    portable: whether it means the same on another machine, as ratios and counts do.
    ideal: the column with what theory would have it be; `ideal_meaning` says which theory.
    tag: a word that is shown with each value, and in its place where it is unknown.
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
    tag: Tag | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns in a table: the value, the ends of its interval, the tag, and the ideal."""
        ends = (f"{self.name}_ci_low", f"{self.name}_ci_high") if self.interval else ()
        return (self.name, *ends, *filter(None, (self.tag_column, self.ideal)))

    @property
    def tag_column(self) -> str | None:
        """The column of its tag, if it has one."""
        return f"{self.name}_{self.tag.name}" if self.tag else None

    def tags(self, launches: Iterable[Launch]) -> str | None:
        """The words of its tag in these launches, most often one; None where there is none."""
        if self.tag is None:
            return None
        words = filter(None, map(self.tag.of, launches))
        return ", ".join(dict.fromkeys(words)) or None

    def summarise(self, launches: Iterable[Launch]) -> Summary:
        """Its value over the rounds that have one; NaN where none has.

        A round is one observation, however often it launches the cell: its launches share the state that the machine
        is in, so that they are not independent of each other, and the rounds are. Of several sessions, the interval
        covers what differs between sessions.

        Raises `ValueError` for a geometric mean of values that are not positive.
        """
        values = self.by_round(launches)
        if not values:
            return Summary(math.nan, None, None)
        if self.over_rounds == "median":
            return Summary(statistics.median(values.values()), None, None)
        return summarise_rounds(values)

    def by_round(self, launches: Iterable[Launch]) -> dict[RoundId, float]:
        """Its value in every round that has one: where a round has several launches, `mean_of_round` of them."""
        rounds: defaultdict[RoundId, list[float]] = defaultdict(list)
        for launch in launches:
            if self.of and (value := self.of(launch)) is not None:
                rounds[launch.round].append(value)
        return {number: mean_of_round(values) for number, values in rounds.items()}

    def gated_values(self, launches: Iterable[Launch]) -> dict[int, float]:
        """What `check` compares of a session: a value by round, from which ratios are formed, so it is positive.

        What must not change has the value of every launch, by its place among them, and may be zero.
        """
        gated = [launch for launch in launches if self.gated_on(launch.cell)]
        if self.gate == "exact":
            values = (value for launch in gated if self.of and (value := self.of(launch)) is not None)
            return {place: float(value) for place, value in enumerate(values) if value >= 0}
        return {number: float(value) for (_, number), value in self.by_round(gated).items() if value > 0}

    def text(self, value: object) -> str:
        """A value as every table, chart and page writes it; `–` where it is unknown."""
        return text.with_unit(value, self.unit)

    def with_interval(self, row: Mapping[Any, Any]) -> str:
        """Its value in a table's row, with the confidence interval where it has one: `1.93× [1.91, 1.95]`.

        A tag follows in brackets, or stands alone where the value is unknown.
        """
        low, high = row.get(f"{self.name}_ci_low"), row.get(f"{self.name}_ci_high")
        value, tag = self.text(row[self.name]), row.get(self.tag_column) if self.tag else None
        if not text.is_number(row[self.name]):
            return text.plain(tag) if isinstance(tag, str) else value
        tagged = f" ({text.plain(tag)})" if isinstance(tag, str) else ""
        if not text.is_number(low) or low == high:
            return value + tagged
        unit = value.lstrip("0123456789.,")
        return f"{value}{tagged} [{self.text(low).removesuffix(unit)}, {self.text(high).removesuffix(unit)}]"
