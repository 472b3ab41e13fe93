"""What is compared: the value of each metric in every launch of every cell of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean
from typing import Literal

from parbench.figures.base import Figure
from parbench.figures.definitions import gated_figures
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run
from parbench.scenario.specs import MetricName


def typical(figure: Figure, values: Sequence[float]) -> float:
    """One value for several launches: the geometric mean of what is measured; of counts the largest."""
    return max(values) if figure.gate == "exact" else geometric_mean(values)


@dataclass(frozen=True)
class Observed:
    """A cell of a run: what became of it, and each metric's value by round."""

    id: str
    key: str
    status: Literal["ok", "skipped", "failed"]
    reason: str | None = None
    metrics: Mapping[MetricName, Mapping[int, float]] = field(default_factory=dict)


def observe(run: Run) -> dict[str, Observed]:
    """Every cell of the run by its id. A cell that the parity gate shut out, or could not check, has failed."""
    return {cell.record.id: _observed(cell) for cell in judge_cells(run)}


def _observed(cell: JudgedCell) -> Observed:
    record = cell.record
    if cell.comparable:
        return Observed(record.id, record.key, "ok", cell.reason, _values(cell))
    skipped = cell.status == "skipped" and record.reason
    return Observed(record.id, record.key, "skipped" if skipped else "failed", cell.reason)


def _values(cell: JudgedCell) -> dict[MetricName, dict[int, float]]:
    values = {name: figure.gated_values(cell.launches) for name, figure in gated_figures().items()}
    return {name: by_round for name, by_round in values.items() if by_round}
