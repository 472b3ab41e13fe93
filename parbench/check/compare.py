"""A run is compared with the sessions of a baseline, which gives a report; and what looked worse once more."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import product
from statistics import geometric_mean, harmonic_mean

from parbench.check.baselines import Baseline, foreign_fields, rounded, scenario_sha256, speed_of
from parbench.check.observations import Observation, observe, together
from parbench.check.reference import weighed
from parbench.check.significance import Comparison, between_sessions, within_run
from parbench.check.verdicts import Finding, Pair, Report, judge, ordered
from parbench.errors import UsageError
from parbench.figures.base import Figure
from parbench.figures.definitions import gated_figures
from parbench.results.store import Run
from parbench.scenario.exclude import is_chosen
from parbench.scenario.specs import CheckSpec

UNKNOWN_SPREAD = (
    "The spread between sessions is not known yet: what differs from day to day may look like a change. "
    "On a shared machine, --against is sounder."
)
MEASURED_AGAIN = "What looked worse was measured once more; the samples of both runs together decided again."
NOT_CONFIRMED = "the samples of both runs together do not confirm the regression"
OTHER_SCENARIO = (
    "The scenario is not that of the newest session, or another parbench has read it: "
    "only the cells that still measure the same are compared."
)
ONE_ROUND = "one round says nothing about the spread between launches: measure at least 2"
ELSEWHERE = "measured in another environment"


def spec_of(run: Run) -> CheckSpec:
    """The `check` section of the run's scenario, as far as it is known: another parbench may have read that."""
    section = run.record.scenario.get("check") or {}
    fields = {name: value for name, value in section.items() if name in CheckSpec.model_fields}
    return CheckSpec.model_validate_json(json.dumps(fields))


def against_baseline(
    run: Run, baseline: Baseline, *, again: Run | None = None, only: Sequence[str] = (), portable: bool = False
) -> Report:
    """A fresh run against what is stored, for the cells that the globs `only` choose.

    The rounds of a second run, `again`, count like further rounds of the first.

    Raises `UsageError` where the run is itself part of the baseline.
    """
    if baseline.holds(run):
        raise UsageError(f"run {run.record.id} is a session of baseline '{baseline.name}' itself: measure again first")
    spec, foreign = spec_of(run), foreign_fields(baseline.environment, speed_of(run))
    observed = together(observe(run), observe(again) if again else {})
    chosen = {name for name in (*observed, *baseline.keys) if is_chosen(name, only)}

    def judge_named(names: Set[str]) -> tuple[Finding, ...]:
        cells = {name: cell for name, cell in observed.items() if name in names}
        keys = {name: key for name, key in baseline.keys.items() if name in names}
        return judge_sessions(cells, keys, baseline, spec, foreign=bool(foreign), portable=portable)

    # Cells that were not chosen are witnesses of the machine's speed, in a family of tests of their own.
    witnesses = judge_named(observed.keys() - chosen)
    findings = [each for each in weighed((*judge_named(chosen), *witnesses), run.record.cells) if each.cell in chosen]
    unknown = any(finding.method == "within run" for finding in findings)
    changed = scenario_sha256(run) != baseline.sessions[-1].scenario_sha256
    return Report(
        title=f"{run.record.id} against baseline {baseline.name}, sessions: {len(baseline.sessions)}",
        spec=spec,
        findings=ordered(findings),
        foreign=tuple(foreign),
        portable=portable,
        notes=(UNKNOWN_SPREAD,) * unknown + (OTHER_SCENARIO,) * changed,
    )


def judge_sessions(
    cells: Mapping[str, Observation],
    keys: Mapping[str, str],
    baseline: Baseline,
    spec: CheckSpec,
    *,
    foreign: bool = False,
    portable: bool = False,
) -> tuple[Finding, ...]:
    """A verdict on every cell of either side, and on every metric that the baseline has of it.

    In a foreign environment nothing absolute can be compared, and ratios gate only where they are said to be portable.
    """
    both = [cell for cell in cells.values() if cell.status == "ok" and keys.get(cell.id) == cell.key]
    findings, pairs = [*without_counterpart(cells, keys)], []
    for cell, metric in product(both, gated_figures().values()):
        gated = metric.name in spec.gate and (not foreign or portable)
        if not baseline.values(cell.id, metric.name):
            continue
        if metric.name not in cell.metrics:
            if gated:
                findings.append(lost(cell, metric, "the run has no value of it"))
        elif foreign and not metric.portable:
            findings.append(
                Finding(cell=cell.id, metric=metric.name, verdict="not comparable", gated=False, reason=ELSEWHERE)
            )
        else:
            pairs.append(_against_sessions(cell, metric, baseline, spec, gated=gated))
    return ordered([*findings, *judge(pairs, spec)])


def confirmed(report: Report, both: Report) -> Report:
    """The rule of `--confirm`: a regression stays one if the samples of both runs together, in `both`, say so again.

    That takes alarms back and never raises one, so the share of false alarms can only fall: the second look needs no
    correction of its own.
    """
    again = {(finding.cell, finding.metric): finding for finding in both.findings}

    def checked(finding: Finding) -> Finding:
        second = again.get((finding.cell, finding.metric), finding)
        if finding.verdict != "regressed" or not finding.gated:
            return finding
        if second.verdict == "regressed":
            return second
        return replace(second, verdict="inconclusive", reason=second.reason or NOT_CONFIRMED)

    return replace(report, findings=ordered(map(checked, report.findings)), notes=(*report.notes, MEASURED_AGAIN))


def lost(cell: Observation, metric: Figure, reason: str) -> Finding:
    """A gated metric without a value is never silently green."""
    return Finding(cell=cell.id, metric=metric.name, verdict="missing", reason=reason)


def without_counterpart(cells: Mapping[str, Observation], keys: Mapping[str, str]) -> Iterator[Finding]:
    """Cells that cannot be compared at all."""
    for name in keys:
        if name not in cells:
            yield Finding(cell=name, metric=None, verdict="missing", reason="the run did not measure it")
    for name, cell in cells.items():
        if cell.status == "failed":
            yield Finding(cell=name, metric=None, verdict="failed", reason=cell.reason)
        elif cell.status == "skipped" and name in keys:
            yield Finding(cell=name, metric=None, verdict="missing", reason=f"skipped: {cell.reason}")
        elif cell.status == "ok" and name not in keys:
            yield Finding(cell=name, metric=None, verdict="new", reason="the baseline does not have it yet")
        elif cell.status == "ok" and keys[name] != cell.key:
            reason = "the scenario measures something else under this name now; save a baseline of it"
            yield Finding(cell=name, metric=None, verdict="not comparable", reason=reason)


def _against_sessions(cell: Observation, metric: Figure, baseline: Baseline, spec: CheckSpec, *, gated: bool) -> Pair:
    sessions = baseline.values(cell.id, metric.name)
    fresh = [rounded(metric.name, value) for value in cell.metrics[metric.name].values()]
    pooled = [value for session in sessions for value in session]
    comparison, problem = (None, None) if metric.gate == "exact" else _comparison(metric, fresh, sessions, spec)
    return Pair(
        cell=cell.id,
        metric=metric,
        gated=gated,
        old=typical(metric, pooled),
        new=typical(metric, fresh),
        comparison=comparison,
        problem=problem,
        # What must not change is what it was last saved to be, not what it has been before.
        values=(frozenset(sessions[-1]), frozenset(fresh)),
    )


def _comparison(
    metric: Figure, fresh: Sequence[float], sessions: Sequence[Sequence[float]], spec: CheckSpec
) -> tuple[Comparison | None, str | None]:
    """The test that there are enough sessions for, or why there is none.

    A mean of few rounds varies more than the means of many that sessions have, and the test between sessions cannot
    know that. It is the average of 1 ÷ rounds that their variances share, hence the harmonic mean.
    """
    new = [worse(metric, value) for value in fresh]
    old = [[worse(metric, value) for value in session] for session in sessions]
    margin = spec.margin_of(metric.name)
    if len(old) >= spec.sessions:
        usual = math.ceil(harmonic_mean(map(len, old)))
        if len(new) < usual:
            return None, f"the run has {len(new)} rounds, its sessions {usual}: measure with --rounds {usual}"
        return between_sessions(new, old, margin), None
    pooled = [value for session in old for value in session]
    if min(len(new), len(pooled)) < 2:
        return None, ONE_ROUND
    return within_run(new, pooled, max(margin, spec.margin_few_sessions)), None


def worse(metric: Figure, value: float) -> float:
    """The logarithm of a value, turned so that more is worse."""
    return math.log(value) if metric.better == "lower" else -math.log(value)


def typical(figure: Figure, values: Sequence[float]) -> float:
    """One value for several launches: the geometric mean of what is measured; of counts the largest."""
    return max(values) if figure.gate == "exact" else geometric_mean(values)
