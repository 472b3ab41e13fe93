"""What a run says of its cells, as far as it can be compared: each metric in every round, or why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


def _observation(cell: JudgedCell) -> Observation:
    record = cell.record
    if cell.comparable:
        return Observation(record.id, record.key, "ok", cell.reason, _values(cell))
    skipped = cell.status == "skipped" and record.reason
    return Observation(record.id, record.key, "skipped" if skipped else "failed", cell.reason)


def _values(cell: JudgedCell) -> dict[MetricName, dict[int, float]]:
    values = {name: figure.gated_values(cell.launches) for name, figure in gated_figures().items()}
    return {name: by_round for name, by_round in values.items() if by_round}
