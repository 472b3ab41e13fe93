"""Two arms that took turns in one campaign are compared: their differences within each round."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from parbench.check.compare import ONE_ROUND, lost, spec_of, typical, without_counterpart, worse
from parbench.check.looks import Looks
from parbench.check.moderation import prior_of
from parbench.check.observations import Observation, observe, together
from parbench.check.significance import NO_SPREAD, Comparison, paired, permutation_p
from parbench.check.verdicts import Finding, Pair, Report, judge, ordered
from parbench.figures.base import Figure
from parbench.figures.definitions import gated_figures
from parbench.results.store import Run
from parbench.scenario.exclude import is_chosen
from parbench.scenario.specs import CheckSpec

Sides = tuple[Observation, Observation]
"""A cell in the candidate and in the base."""


def against_arm(
    candidate: Run,
    base: Run,
    title: str,
    *,
    again: tuple[Run, Run] | None = None,
    looks: Looks | None = None,
    only: Sequence[str] = (),
) -> Report:
    """The candidate against the base, for the cells that the globs `only` choose.

    The rounds of a second campaign, `again`, count like further rounds of the first. With `looks` the campaign may
    have stopped at each of them, and p-values account for that.
    """
    spec, runs = spec_of(candidate), (candidate, base)
    observed, others = (
        together(observe(run), observe(again[index]) if again else {}) for index, run in enumerate(runs)
    )
    cells = {name: cell for name, cell in observed.items() if is_chosen(name, only)}
    bad = [name for name, cell in cells.items() if cell.status == "ok" and others[name].status == "failed"]
    findings = [
        Finding(cell=name, metric=None, verdict="failed", reason=f"in the arm compared with: {others[name].reason}")
        for name in bad
    ]
    compared = {name: cell for name, cell in cells.items() if name not in bad}
    # What neither arm can do is skipped in both: one plan serves them.
    findings += without_counterpart(
        compared, {name: others[name].key for name in compared if others[name].status != "skipped"}
    )
    pairs: list[Pair] = []
    for metric in gated_figures().values():
        sides = {name: (cell, others[name]) for name, cell in compared.items()}
        pairs += _pairs(metric, sides, spec, looks)
        findings += [
            lost(cell, metric, "no round has a value of it in both arms")
            for cell, other in sides.values()
            if other.metrics.get(metric.name) and cell.status == "ok" and metric.name in spec.gate
            if not _rounds(metric, (cell, other))
        ]
    return Report(title=title, spec=spec, findings=ordered([*findings, *judge(pairs, spec)]))


def is_gated(metric: Figure, spec: CheckSpec) -> bool:
    """Whether the metric decides between two arms.

    A ratio to the reference does not: the absolute figures of the same rounds are compared, and a better reference
    makes every ratio to it worse.
    """
    return metric.name in spec.gate and not (metric.gate == "relative" and metric.portable)


def _pairs(metric: Figure, sides: Mapping[str, Sides], spec: CheckSpec, looks: Looks | None) -> Iterator[Pair]:
    """The metric of every cell that has it in a round of both arms."""
    rounds = {name: numbers for name, each in sides.items() if (numbers := _rounds(metric, each))}
    changes = {
        name: [worse(metric, new[number]) - worse(metric, old[number]) for number in rounds[name]]
        for name in rounds
        for new, old in [[side.metrics[metric.name] for side in sides[name]]]
    }
    relative, margin = metric.gate == "relative", spec.margin_of(metric.name)
    comparisons = compare_rounds(changes, margin, looks) if relative else {}
    for name, numbers in rounds.items():
        new, old = (side.metrics[metric.name] for side in sides[name])
        gated, comparison = is_gated(metric, spec), comparisons.get(name)
        yield Pair(
            cell=name,
            metric=metric,
            gated=gated,
            old=typical(metric, [old[number] for number in numbers]),
            new=typical(metric, [new[number] for number in numbers]),
            comparison=comparison,
            p_permutation=permutation_p(changes[name], margin) if comparison and gated else None,
            problem=ONE_ROUND if relative and comparison is None else None,
            values=(frozenset(old.values()), frozenset(new.values())),
        )


def compare_rounds(
    changes: Mapping[str, Sequence[float]], margin: float, looks: Looks | None = None
) -> dict[str, Comparison]:
    """One metric's comparison of each cell, from its differences in rounds, where there are at least two.

    At every look, the variances of all cells moderate each other's.
    """
    most = max(map(len, changes.values()), default=0)
    if looks is None:
        return _compare_at(most, changes, margin)
    made: dict[str, Comparison] = {}
    for look, stop in enumerate((*(number for number in looks.rounds if number < most), most)):
        for name, comparison in _compare_at(stop, changes, margin).items():
            made[name] = replace(comparison, looks=looks, look=look, earlier=made.get(name))
    return made


def _compare_at(stop: int, changes: Mapping[str, Sequence[float]], margin: float) -> dict[str, Comparison]:
    from numpy import var

    samples = {name: sample[:stop] for name, sample in changes.items() if len(sample[:stop]) >= 2}
    varied = [float(var(each, ddof=1)) for each in samples.values() if len(each) == stop]
    prior = prior_of([variance for variance in varied if variance > NO_SPREAD**2], stop - 1)
    return {name: paired(sample, margin, prior) for name, sample in samples.items()}


def _rounds(metric: Figure, sides: Sides) -> list[int]:
    """The rounds in which both sides have a value."""
    new, old = (side.metrics.get(metric.name, {}) for side in sides)
    return sorted(new.keys() & old.keys())
