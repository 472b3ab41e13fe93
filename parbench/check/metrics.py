"""What is compared: each metric's direction, and its value in every launch of every cell of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean
from typing import Literal

from parbench.figures import generation, memory, speed, traffic
from parbench.figures.base import Launch
from parbench.figures.definitions import FIGURES
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run
from parbench.scenario.specs import MetricName

LOW_QUANTILE = 0.1


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric, which direction is better (None: it must stay exactly as it is), and whether machines share it.

    `portable` metrics are ratios or counts that mean the same on another machine.
    """

    name: MetricName
    title: str
    better: Literal["higher", "lower"] | None
    of: Callable[[Launch], float | None]
    unit: str
    portable: bool = False

    def typical(self, values: Sequence[float]) -> float:
        """One value for several launches: the geometric mean of what is measured; of counts the largest."""
        return geometric_mean(values) if self.better else max(values)


def _fastest_step(launch: Launch) -> float:
    return speed.step_time_quantile_s(launch.trial, 0)


def _relative_step_time(launch: Launch) -> float | None:
    """The strategy/`single` ratio: the fastest step over that of the reference in the same round."""
    alone = launch.cell.is_reference and launch.cell.devices == 1
    return _fastest_step(launch) / _fastest_step(launch.base) if launch.base and not alone else None


def _scaling_efficiency(launch: Launch) -> float | None:
    if launch.base is None or launch.cell.devices == 1:
        return None
    base = speed.tokens_per_s(launch.base.trial, launch.base.cell)
    return speed.tokens_per_s(launch.trial, launch.cell) / base / launch.cell.devices


def _parameters(launch: Launch) -> int:
    """The parameters that all ranks hold together."""
    return sum(job.parameters for rank in launch.trial.ranks for job in rank.jobs)


def _registered(name: MetricName, of: Callable[[Launch], float | None], *, portable: bool = False) -> Metric:
    """A figure of the tables, with their title and direction."""
    figure = FIGURES[name]
    return Metric(name=name, title=figure.title, better=figure.better, of=of, unit=figure.unit, portable=portable)


def _of_generation(name: MetricName) -> Metric:
    return _registered(name, lambda launch: generation.generation_figures(launch.trial, launch.cell).get(name))


def _quantile(name: MetricName, title: str, share: float) -> Metric:
    def of(launch: Launch) -> float:
        return speed.step_time_quantile_s(launch.trial, share)

    return Metric(name=name, title=title, better="lower", of=of, unit="s")


def _exact(name: MetricName, title: str, of: Callable[[Launch], float | None]) -> Metric:
    """A count that must stay as it is, on every machine."""
    return Metric(name=name, title=title, better=None, of=of, unit="", portable=True)


METRICS: dict[MetricName, Metric] = {
    metric.name: metric
    for metric in (
        _quantile("step_time_min_s", "fastest step", 0),
        _quantile("step_time_p10_s", "10 % of steps", LOW_QUANTILE),
        _registered("step_time_s", lambda launch: speed.step_time_s(launch.trial)),
        _registered("tokens_per_s", lambda launch: speed.tokens_per_s(launch.trial, launch.cell)),
        _registered("peak_memory_bytes", lambda launch: memory.peak_memory_bytes(launch.trial)),
        _of_generation("time_to_first_token_s"),
        _of_generation("time_per_output_token_p50_s"),
        _of_generation("decode_tokens_per_s"),
        _registered("scaling_efficiency", _scaling_efficiency, portable=True),
        Metric(
            name="relative_step_time",
            title="step ÷ reference's",
            better="lower",
            of=_relative_step_time,
            unit="×",
            portable=True,
        ),
        _exact("parameters", "parameters", _parameters),
        _exact("collectives", "collectives a step", lambda launch: traffic.collectives(launch.trial)),
        _exact("communicated_bytes", "bytes a step", lambda launch: traffic.communicated_bytes(launch.trial)),
    )
}


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
        return Observed(record.id, record.key, "ok", cell.reason, _values(cell.launches))
    skipped = cell.status == "skipped" and record.reason
    return Observed(record.id, record.key, "skipped" if skipped else "failed", cell.reason)


def _values(launches: Mapping[int, Launch]) -> dict[MetricName, dict[int, float]]:
    """Values that are known and, where ratios are formed of them, positive; of a count, none is a value as well."""
    values: dict[MetricName, dict[int, float]] = {}
    for name, metric in METRICS.items():
        known = {number: metric.of(launch) for number, launch in launches.items()}
        values[name] = {
            number: float(value)
            for number, value in known.items()
            if value is not None and (value > 0 or (value == 0 and metric.better is None))
        }
    return {name: by_round for name, by_round in values.items() if by_round}
