"""A slower machine, or a slower program? As long as sessions are few, the reference tells."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from parbench.check.metrics import METRICS
from parbench.check.verdicts import Finding
from parbench.results.trial import CellRecord
from parbench.scenario import MetricName

RATIO: MetricName = "relative_step_time"
SPEED_UNITS = ("s", "tokens/s")
TOGETHER = (
    "slower, but so is the reference, and the ratio to it is not measurably worse: the machine, or all of the program. "
    "Few sessions cannot tell; --against can"
)


def without_drift(findings: Sequence[Finding], cells: Iterable[CellRecord]) -> tuple[Finding, ...]:
    """Leaves open what got slower together with its reference, where few sessions say how machines vary.

    Twenty checks of an unchanged program against one session, on a shared machine, raised 12 false alarms, all of them
    in absolute times and throughput of all cells alike; of the ratio to the reference in the same round, none. Where
    there is no ratio to judge, the absolute figures are all there is, and decide.
    """
    workload = {cell.id: (cell.workload, cell.scaling) for cell in cells}
    references = {cell.id for cell in cells if cell.is_reference and cell.devices == 1}
    slower = {(workload[each.cell], each.metric) for each in findings if each.cell in references and _alarms(each)}
    ratios = [each for each in findings if each.metric == RATIO and each.method]
    worse = {each.cell for each in ratios if each.verdict == "regressed"}
    judged = {each.cell for each in ratios}
    with_ratio = judged | {name for name in references if workload[name] in {workload[each] for each in judged}}

    def looked_at(finding: Finding) -> Finding:
        if not _alarms(finding) or finding.cell in worse or finding.cell not in with_ratio:
            return finding
        if (workload[finding.cell], finding.metric) not in slower:
            return finding
        return replace(finding, verdict="inconclusive", reason=TOGETHER)

    return tuple(map(looked_at, findings))


def _alarms(finding: Finding) -> bool:
    """A time or a speed that got worse, as far as the rounds of few sessions tell: those follow a machine's day."""
    if finding.metric is None or METRICS[finding.metric].unit not in SPEED_UNITS:
        return False
    return finding.verdict == "regressed" and finding.method == "within run"
