"""What the reference tells: a slower machine or a slower program, a worse cell or a better reference.

A ratio to the reference moves with both of its sides, and an absolute time with the machine. So each judges the other's
alarms: that of a ratio counts only where the cell's own figure leaves room for it, and, as long as sessions are few,
that of an absolute figure only where the reference did not move along.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from parbench.check.verdicts import Finding, Verdict
from parbench.figures.definitions import FIGURES
from parbench.records.cell import CellRecord
from parbench.scenario.specs import MetricName

RATIO: MetricName = "relative_step_time"
OWN_FIGURE: Mapping[MetricName, MetricName] = {RATIO: "step_time_min_s", "scaling_efficiency": "tokens_per_s"}
"""For each ratio to the reference the cell's own figure on its upper side."""

SPEED_UNITS = ("s", "tokens/s")
TOGETHER = (
    "slower, but so is the reference, and the ratio to it is not measurably worse: the machine, or all of the program. "
    "Few sessions cannot tell; --against can"
)
NOT_WORSE_ITSELF = "only the ratio got worse: the cell's own figure is within its margin or better"
BETTER_REFERENCE = "the reference got better, and the cell itself is not measurably worse"
PERHAPS_THE_MACHINE = (
    ". Either the reference improved, or the machine is faster today and this cell is not. "
    "Few sessions cannot tell; --against can"
)


def weighed(findings: Sequence[Finding], cells: Iterable[CellRecord]) -> tuple[Finding, ...]:
    """The findings, without the alarms that the reference explains."""
    sides = _Sides(findings, {cell.id: cell for cell in cells})
    return tuple(sides.weigh_ratio(each) if each.metric in OWN_FIGURE else sides.weigh_speed(each) for each in findings)


@dataclass(frozen=True)
class _Sides:
    """All findings of a check, and for each cell its own figures and those of its reference."""

    findings: Sequence[Finding]
    cells: Mapping[str, CellRecord]

    def weigh_ratio(self, finding: Finding) -> Finding:
        """Takes back a ratio's alarm where the cell itself is not worse.

        It is not where its own figure is shown to be within the margin or better, or where the reference is shown to be
        better and the cell not to be worse; both by their 95 % intervals. Many sessions know how the machine varies, so
        there the first is `ok`. With few, a machine that is faster today could hide a slower cell: that stays open.
        Without an own figure, as in a foreign environment, the ratio decides.
        """
        own = self._tested.get((finding.cell, OWN_FIGURE[finding.metric])) if finding.metric else None
        if finding.verdict != "regressed" or own is None or own.verdict == "regressed":
            return finding
        base = self._reference_of(own)
        few = PERHAPS_THE_MACHINE if own.method == "within run" else ""
        if _worst_case(own) <= (own.margin or 0.0):
            verdict: Verdict = "inconclusive" if few else "ok"
            return replace(finding, verdict=verdict, reason=NOT_WORSE_ITSELF + few)
        if base and _worst_case(base) < 0 and _best_case(own) <= 0:
            return replace(finding, verdict="inconclusive", reason=BETTER_REFERENCE + few)
        return finding

    def weigh_speed(self, finding: Finding) -> Finding:
        """Leaves open what got slower together with its reference, where few sessions say how machines vary.

        Twenty checks of an unchanged program against one session, on a shared machine, raised 12 false alarms, all of
        them in absolute times and throughput of all cells alike; of the ratio to the reference in the same round, none.
        So a cell's alarm stands where its ratio is worse, or it lost more than its reference for certain; the
        reference's own where another cell's ratio is better and none was as slow. Where there is no ratio to judge,
        absolute figures are all there is, and decide.
        """
        if not _follows_the_day(finding) or self._stands(finding):
            return finding
        return replace(finding, verdict="inconclusive", reason=TOGETHER)

    def _stands(self, alarm: Finding) -> bool:
        group = self._group(alarm.cell)
        ratios = {name: each.verdict for (name, metric), each in self._tested.items() if metric == RATIO}
        base = self._reference_of(alarm)
        if base is None or not _follows_the_day(base) or group not in set(map(self._group, ratios)):
            return True
        if self._is_reference(alarm.cell):
            refuted = any(verdict == "improved" and self._group(name) == group for name, verdict in ratios.items())
            return refuted and not self._others_alarm(alarm)
        return alarm.cell not in ratios or ratios[alarm.cell] == "regressed" or _best_case(alarm) > _worst_case(base)

    def _others_alarm(self, alarm: Finding) -> bool:
        """Whether another cell beside the same reference got worse in the same figure."""
        return any(
            _follows_the_day(each) and not self._is_reference(each.cell)
            for each in self.findings
            if each.metric == alarm.metric and self._group(each.cell) == self._group(alarm.cell)
        )

    @cached_property
    def _tested(self) -> dict[tuple[str, MetricName], Finding]:
        return {(each.cell, each.metric): each for each in self.findings if each.metric and each.method}

    def _reference_of(self, finding: Finding) -> Finding | None:
        """The same figure of the reference on one device."""
        return self._of_references.get((self._group(finding.cell), finding.metric))

    @cached_property
    def _of_references(self) -> dict[tuple[tuple[str, str], MetricName | None], Finding]:
        names = {self._group(name): name for name in reversed(list(self.cells)) if self._is_reference(name)}
        tested = self._tested.values()
        return {(group, each.metric): each for group, name in names.items() for each in tested if each.cell == name}

    def _is_reference(self, cell: str) -> bool:
        return self.cells[cell].is_reference and self.cells[cell].devices == 1

    def _group(self, cell: str) -> tuple[str, str]:
        """Cells of one workload and scaling share a reference."""
        return self.cells[cell].workload, self.cells[cell].scaling


def _follows_the_day(finding: Finding) -> bool:
    """Whether it is a time or a speed that got worse, as far as the rounds of few sessions tell."""
    if finding.metric is None or FIGURES[finding.metric].unit not in SPEED_UNITS:
        return False
    return finding.verdict == "regressed" and finding.method == "within run"


def _worst_case(finding: Finding) -> float:
    """The end of the change's interval at which it is worst, as a share; more is worse."""
    return _worsenings(finding)[1]


def _best_case(finding: Finding) -> float:
    """The other end."""
    return _worsenings(finding)[0]


def _worsenings(finding: Finding) -> tuple[float, float]:
    assert finding.metric is not None  # noqa: S101 - for mypy: what was tested has a metric and an interval
    assert finding.low is not None  # noqa: S101
    assert finding.high is not None  # noqa: S101
    if FIGURES[finding.metric].better == "higher":
        return 1 / finding.high - 1, 1 / finding.low - 1
    return finding.low - 1, finding.high - 1
