"""A slower machine, or a slower program? As long as sessions are few, the reference tells."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from parbench.check.verdicts import Finding
from parbench.figures.definitions import FIGURES
from parbench.records.cell import CellRecord
from parbench.scenario.specs import MetricName

RATIO: MetricName = "relative_step_time"
SPEED_UNITS = ("s", "tokens/s")
TOGETHER = (
    "slower, but so is the reference, and the ratio to it is not measurably worse: the machine, or all of the program. "
    "Few sessions cannot tell; --against can"
)


def without_drift(findings: Sequence[Finding], cells: Iterable[CellRecord]) -> tuple[Finding, ...]:
    """Leaves open what got slower together with its reference, where few sessions say how machines vary.

    Twenty checks of an unchanged program against one session, on a shared machine, raised 12 false alarms, all of them
    in absolute times and throughput of all cells alike; of the ratio to the reference in the same round, none. So a
    cell's alarm stands where its ratio is worse, or it lost more than its reference for certain; the reference's own
    where another cell's ratio is better and none was as slow. Where there is no ratio to judge, absolute figures are
    all there is, and decide.
    """
    workload = {cell.id: (cell.workload, cell.scaling) for cell in cells}
    references = {cell.id for cell in cells if cell.is_reference and cell.devices == 1}
    alarms = [each for each in findings if _alarms(each)]
    reference_of = {(workload[each.cell], each.metric): each for each in alarms if each.cell in references}
    others = {(workload[each.cell], each.metric) for each in alarms if each.cell not in references}
    ratio = {each.cell: each.verdict for each in findings if each.metric == RATIO and each.method}
    compared = {workload[name] for name in ratio}
    refuted = {workload[name] for name, verdict in ratio.items() if verdict == "improved"}

    def stands(alarm: Finding) -> bool:
        where = workload[alarm.cell]
        reference = reference_of.get((where, alarm.metric))
        if reference is None or where not in compared:
            return True
        if alarm.cell in references:
            return where in refuted and (where, alarm.metric) not in others
        return alarm.cell not in ratio or ratio[alarm.cell] == "regressed" or _lost_more(alarm, reference)

    return tuple(
        replace(each, verdict="inconclusive", reason=TOGETHER) if _alarms(each) and not stands(each) else each
        for each in findings
    )


def _lost_more(cell: Finding, reference: Finding) -> bool:
    """Whether the intervals of two changes for the worse do not even touch, the cell's beyond the reference's."""
    if cell.metric is None or cell.low is None or cell.high is None or reference.low is None or reference.high is None:
        return False
    return cell.high < reference.low if FIGURES[cell.metric].better == "higher" else cell.low > reference.high


def _alarms(finding: Finding) -> bool:
    """A time or a speed that got worse, as far as the rounds of few sessions tell: those follow a machine's day."""
    if finding.metric is None or FIGURES[finding.metric].unit not in SPEED_UNITS:
        return False
    return finding.verdict == "regressed" and finding.method == "within run"
