"""The gate: measure what has to be measured, compare, and measure once more what looks worse."""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from parbench.campaign.against import run_arms
from parbench.campaign.arms import Arms, arms_against
from parbench.campaign.progress import Progress
from parbench.campaign.run import new_folder, run_campaign
from parbench.check.baselines import Baseline
from parbench.check.compare import against_arm, against_baseline, confirmed
from parbench.check.rows import document
from parbench.check.verdicts import Report
from parbench.export.json import Json
from parbench.launch.local.launcher import LocalLauncher
from parbench.plan.cells import Plan
from parbench.records.cell import CellRecord
from parbench.results.store import Run

NOISE_FLOOR_FILE = "noise_floor.json"


@dataclass(frozen=True)
class Bench:
    """Where a gate measures into, where it tells of it, and how progress is shown there."""

    results: Path
    console: Console
    progress_on: Callable[[Console], Progress]

    def run(self, plan: Plan) -> Run:
        """A fresh run of the plan."""
        folder = self._folder(plan)
        launcher = LocalLauncher()
        try:
            launcher.start()
            return run_campaign(plan, folder, launcher, self.progress_on(self.console), command=_command())
        finally:
            launcher.close()

    def run_arms(self, plan: Plan, arms: Arms, title: str, only: Sequence[str]) -> tuple[Report, Path]:
        """Both arms in turns, compared in the cells that the globs `only` choose."""
        folder = self._folder(plan)
        candidate, base, changed = run_arms(plan, arms, folder, self.progress_on(self.console), command=_command())
        report = against_arm(candidate, base, title, only=only)
        return replace(report, notes=(*report.notes, *changed)), folder

    def _folder(self, plan: Plan) -> Path:
        folder = new_folder(self.results, plan.scenario.name)
        self.console.print(f"Measuring into {folder}", highlight=False, markup=False, soft_wrap=True)
        return folder


def check_scenario(
    plan: Plan,
    baseline: Baseline,
    bench: Bench,
    *,
    only: Sequence[str] = (),
    portable: bool = False,
    confirm: bool = False,
) -> Report:
    """Measures the scenario now and compares it with a baseline."""
    report = against_baseline(bench.run(plan), baseline, only=only, portable=portable)
    suspects = _suspects(plan, report)
    if not confirm or suspects is None:
        return report
    return confirmed(report, against_baseline(bench.run(suspects), baseline, only=only, portable=portable))


def check_against(plan: Plan, what: str, bench: Bench, *, only: Sequence[str] = (), confirm: bool = False) -> Report:
    """Measures the scenario's cells here and as `what` has them, in turns. Against itself, the noise floor is kept."""
    with arms_against(what) as arms:
        title = f"{plan.scenario.name} against {what}"
        report, folder = bench.run_arms(plan, arms, title, only)
        if what == "itself":
            (folder / NOISE_FLOOR_FILE).write_text(Json().write(document(report)))
        suspects = _suspects(plan, report)
        if not confirm or suspects is None:
            return report
        return confirmed(report, bench.run_arms(suspects, arms, title, only)[0])


def with_references(plan: Plan, chosen: Collection[str]) -> Plan:
    """The part of a plan with these cells, and with the references on one device that their ratios need."""
    bases = {(cell.record.workload, cell.record.scaling) for cell in plan.cells if cell.record.id in chosen}

    def needed(record: CellRecord) -> bool:
        return record.is_reference and record.devices == 1 and (record.workload, record.scaling) in bases

    return replace(plan, cells=tuple(cell for cell in plan.cells if cell.record.id in chosen or needed(cell.record)))


def _suspects(plan: Plan, report: Report) -> Plan | None:
    """The cells that look worse, if any, and their references."""
    worse = {finding.cell for finding in report.of("regressed")}
    return with_references(plan, worse) if worse else None


def _command() -> Sequence[str]:
    return ["parbench", *sys.argv[1:]]
