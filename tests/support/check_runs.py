"""Made-up runs of two cells, and checks of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parbench.check import baselines
from parbench.check.compare import against_baseline
from parbench.check.verdicts import Report
from parbench.records.trial import TrafficRecord
from parbench.results.store import Run
from parbench.scenario.specs import MetricName
from tests.support import records

SPEED = {"cpu_model": "AMD EPYC", "physical_cores": 2, "torch": "2.13.0", "variables": {"LD_PRELOAD": "x"}}
SINGLE, DDP = records.cell(), records.cell("ddp", 2)
CALM = (1.0, 1.01, 0.99, 1.02, 0.98)


def run(
    name: str = "first",
    *,
    single: Sequence[float] = CALM,
    ddp: Sequence[float] | None = CALM,
    speed: dict[str, Any] = SPEED,
    check: dict[str, Any] | None = None,
    parameters: int = 1000,
    traffic: TrafficRecord | None = None,
    **changes: Any,
) -> Run:
    """A run whose cells' windows, and so their steps, took so long in each round."""
    cells = [SINGLE] + [DDP] * (ddp is not None)
    trials = [records.reference(SINGLE)]
    for cell, seconds in ((SINGLE, single), (DDP, ddp or ())):
        trials += [
            records.trial(
                cell,
                number,
                ranks=(records.rank(jobs=(records.job(window_s=2 * each, parameters=parameters),), traffic=traffic),),
            )
            for number, each in enumerate(seconds)
        ]
    record = records.run_record(
        changes.pop("cells", cells),
        rounds=len(single),
        id=name,
        environment={"speed": speed, "context": {"host": name, "git_commit": "abc", "parbench": "0"}},
        scenario={"name": "made_up", **({"check": check} if check else {})},
    )
    return Run(Path(name), record, tuple(changes.pop("trials", trials)), ())


def check(fresh: Run, tmp_path: Path, *stored: Run, **options: Any) -> Report:
    for each in stored or (run(),):
        baseline = baselines.save(each, "mine", tmp_path)
    return against_baseline(fresh, baseline, **options)


def verdicts(report: Report, metric: MetricName = "step_time_min_s") -> dict[str, str]:
    return {finding.cell: finding.verdict for finding in report.findings if finding.metric == metric}
