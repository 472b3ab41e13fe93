"""Verdicts: what got worse, what the rounds cannot tell, and the exit code that follows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from parbench.check.baselines import ForeignField
from parbench.check.significance import Comparison, holm
from parbench.figures.base import Figure
from parbench.scenario.specs import CheckSpec, MetricName
from parbench.system import exit_codes

Verdict = Literal["regressed", "failed", "missing", "not comparable", "inconclusive", "improved", "ok", "new"]

NOTHING_JUDGED = "No cell could be judged: a gate on nothing is not green."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The verdict on a cell's metric, or on a whole cell where `metric` is None.

    `ratio` is new over old with its 95 % interval, `p` the corrected probability of so bad a change within the margin,
    `detectable` the smallest worsening that would have been found. `undecided` says that further
    rounds of the design may still decide it. Only `gated` findings decide the exit code.
    """

    cell: str
    metric: MetricName | None
    verdict: Verdict
    gated: bool = True
    reason: str | None = None
    method: str | None = None
    old: float | None = None
    new: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_permutation: float | None = None
    margin: float | None = None
    noise: float | None = None
    detectable: float | None = None
    rounds: int | None = None
    worse: float = 0.0
    undecided: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """All findings of a check, what got worse first, and where the environments differ."""

    title: str
    spec: CheckSpec
    findings: tuple[Finding, ...]
    foreign: tuple[ForeignField, ...] = ()
    portable: bool = False
    notes: tuple[str, ...] = ()

    def of(self, *verdicts: Verdict) -> list[Finding]:
        """The gated findings with one of these verdicts."""
        return [finding for finding in self.findings if finding.gated and finding.verdict in verdicts]

    @property
    def problem(self) -> str | None:
        """Why this report judges nothing, if it does not."""
        if self.foreign and not self.portable:
            fields = ", ".join(difference.field for difference in self.foreign)
            return (
                f"Measured in another environment than the baseline ({fields}): absolute figures are not comparable, "
                "ratios advisory; --portable lets ratios gate, or save a baseline of this environment."
            )
        if any(finding.gated and finding.method for finding in self.findings):
            return None
        # A gate on counts alone has no test to make; but counts do not stand in for tests that could not be made.
        exact = any(finding.metric for finding in self.of("ok", "regressed"))
        return None if exact and not self.of("inconclusive") else NOTHING_JUDGED

    def exit_code(self, *, strict: bool) -> int:
        """0 is only for a gate that has judged something and found nothing amiss."""
        if self.foreign and not self.portable:
            return exit_codes.NO_BASELINE
        if self.of("regressed"):
            return exit_codes.REGRESSION
        if self.of("failed", "missing"):
            return exit_codes.CELL_FAILED
        if self.of("not comparable"):
            return exit_codes.NO_BASELINE
        if self.problem:
            return exit_codes.CELL_FAILED
        return exit_codes.INCONCLUSIVE if strict and self.of("inconclusive") else exit_codes.OK


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A metric of a cell in both arms, compared but not judged yet."""

    cell: str
    metric: Figure
    gated: bool
    old: float
    new: float
    comparison: Comparison | None = None
    p_permutation: float | None = None
    problem: str | None = None
    values: tuple[frozenset[float], frozenset[float]] = field(default=(frozenset(), frozenset()))


def judge(pairs: Sequence[Pair], spec: CheckSpec) -> list[Finding]:
    """Holm's correction over the gated comparisons, and another over the advisory ones; then a verdict on each."""
    findings = []
    for gated in (True, False):
        family = [pair for pair in pairs if pair.gated is gated]
        tested = [pair for pair in family if pair.comparison]
        rejected, corrected = holm([pair.comparison.p_worse for pair in tested if pair.comparison], spec.alpha)
        better = _surely_better(tested, spec)
        for pair, fell, p, improved in zip(tested, rejected, corrected, better, strict=True):
            findings.append(_judge(pair, spec, fell, p, improved, alpha=spec.alpha / len(tested)))
        findings += [_judge_exactly(pair) for pair in family if not pair.comparison]
    return findings


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What got worse first, and of that the most."""
    severity = get_args(Verdict)
    return tuple(sorted(findings, key=lambda each: (not each.gated, severity.index(each.verdict), -each.worse)))


def _judge(pair: Pair, spec: CheckSpec, fell: bool, p: float, improved: bool, *, alpha: float) -> Finding:
    comparison = pair.comparison
    assert comparison is not None  # noqa: S101 - for mypy: only what was compared is judged here
    detectable, effect = comparison.detectable(alpha, spec.power), math.log1p(spec.min_effect)
    reason = None
    if fell:
        verdict: Verdict = "regressed"
    elif improved:
        verdict = "improved"
    elif detectable > effect:
        verdict, reason = "inconclusive", _too_blunt(comparison, spec, alpha)
    else:
        verdict = "ok"
    sign = -1 if pair.metric.better == "higher" else 1
    low, high = sorted(sign * bound for bound in comparison.interval)
    return Finding(
        cell=pair.cell,
        metric=pair.metric.name,
        verdict=verdict,
        gated=pair.gated,
        reason=reason,
        method=comparison.method,
        old=pair.old,
        new=pair.new,
        ratio=math.exp(sign * comparison.estimate),
        low=math.exp(low),
        high=math.exp(high),
        p=p,
        p_permutation=pair.p_permutation,
        margin=math.expm1(comparison.margin),
        noise=comparison.noise,
        detectable=math.expm1(detectable) if detectable < 10 else None,
        rounds=comparison.counts[0],
        worse=comparison.estimate,
        undecided=verdict == "inconclusive" or (verdict == "ok" and comparison.may_still_fall(alpha)),
    )


def _judge_exactly(pair: Pair) -> Finding:
    """The verdict on what must not change, or on what could not be tested at all."""
    old, new = pair.values
    ratio = pair.new / pair.old if pair.new and pair.old else None
    if pair.problem:
        verdict: Verdict = "inconclusive"
        reason: str | None = pair.problem
    else:
        verdict = "ok" if old == new else "regressed"
        reason = None if old == new else f"must not change: was {_list(old)}, is {_list(new)}"
    return Finding(
        cell=pair.cell,
        metric=pair.metric.name,
        verdict=verdict,
        gated=pair.gated,
        reason=reason,
        old=pair.old,
        new=pair.new,
        ratio=ratio,
        margin=0.0 if pair.metric.gate == "exact" else None,
        worse=abs(math.log(ratio)) if ratio else 0.0,
    )


def _surely_better(tested: Sequence[Pair], spec: CheckSpec) -> list[bool]:
    """Which became better by more than the margin, with a correction of their own."""
    comparisons = [pair.comparison for pair in tested if pair.comparison]
    beyond = [comparison.estimate < -comparison.margin for comparison in comparisons]
    if not any(beyond):
        return beyond
    p_values = [each.p_better if far else 1.0 for each, far in zip(comparisons, beyond, strict=True)]
    return holm(p_values, spec.alpha)[0]


def _too_blunt(comparison: Comparison, spec: CheckSpec, alpha: float) -> str:
    """Why the verdict is open, and what would settle it."""
    problem = f"a change of {spec.min_effect:.0%} would not surely be seen"
    rounds = comparison.rounds_needed(math.log1p(spec.min_effect), alpha, spec.power)
    if rounds is None:
        return f"{problem}: sessions differ too much here; compare with --against, or keep more sessions"
    run, baseline = (max(1, needed - count) for needed, count in zip(rounds, comparison.counts, strict=True))
    where = "" if comparison.method == "paired" else f" in the run, {baseline} in the baseline"
    return f"{problem}; more rounds needed: {run}{where}"


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:,.12g}" for value in sorted(values))
