"""What a run says of its cells, as far as it can be compared: each metric in every round, or why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from parbench.figures.definitions import gated_figures
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run
from parbench.scenario.specs import MetricName


@dataclass(frozen=True)
class Observation:
    """A cell of a run: the hash of what was measured, what became of it and why, and each metric's value by round.

    A metric that must not change has the value of every launch, of which a round has several of a base.
    """

    id: str
    key: str
    status: Literal["ok", "skipped", "failed"]
    reason: str | None = None
    metrics: Mapping[MetricName, Mapping[int, float]] = field(default_factory=dict)


def observe(run: Run) -> dict[str, Observation]:
    """Every cell of the run by its id. A cell that the parity gate shut out, or could not check, has failed."""
    return {cell.record.id: _observation(cell) for cell in judge_cells(run)}


def together(first: Mapping[str, Observation], second: Mapping[str, Observation]) -> dict[str, Observation]:
    """The cells of a run with the rounds of a second one after theirs, where that measured the same and well."""
    return {name: _followed(cell, second.get(name)) for name, cell in first.items()}


def _followed(cell: Observation, more: Observation | None) -> Observation:
    if more is None or (more.status, more.key) != (cell.status, cell.key):
        return cell
    offset = 1 + max((number for by_round in cell.metrics.values() for number in by_round), default=-1)
    metrics = {
        name: {**by_round, **{offset + number: value for number, value in more.metrics.get(name, {}).items()}}
        for name, by_round in cell.metrics.items()
    }
    return replace(cell, metrics=metrics)


def _observation(cell: JudgedCell) -> Observation:
    record = cell.record
    if cell.comparable:
        return Observation(record.id, record.key, "ok", cell.reason, _values(cell))
    skipped = cell.status == "skipped" and record.reason
    return Observation(record.id, record.key, "skipped" if skipped else "failed", cell.reason)


def _values(cell: JudgedCell) -> dict[MetricName, dict[int, float]]:
    values = {name: figure.gated_values(cell.launches) for name, figure in gated_figures().items()}
    return {name: by_round for name, by_round in values.items() if by_round}
