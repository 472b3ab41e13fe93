"""The gate: measures a scenario, compares it, and measures once more the cells that look worse."""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
    """Measures on this machine, each time into a new folder below `results` and with a new view of its progress."""

    results: Path
    new_progress: Callable[[], Progress]

    def run(self, plan: Plan) -> Run:
        """Measures the plan."""
        folder, progress, launcher = *self._begin(plan), LocalLauncher()
        try:
            launcher.start()
            return run_campaign(plan, folder, launcher, progress, command=_command())
        finally:
            launcher.close()

    def run_arms(self, plan: Plan, arms: Arms, title: str, only: Sequence[str]) -> tuple[Report, Path]:
        """Measures both arms in turns and compares the cells that the globs `only` choose; with the runs' folder."""
        folder, progress = self._begin(plan)
        candidate, base, notes = run_arms(plan, arms, folder, progress, command=_command())
        report = against_arm(candidate, base, title, only=only)
        return replace(report, notes=(*report.notes, *notes)), folder

    def _begin(self, plan: Plan) -> tuple[Path, Progress]:
        """A new folder and the view of the campaign that measures into it."""
        folder, progress = new_folder(self.results, plan.scenario.name), self.new_progress()
        progress.show_sentence(f"Measuring into {folder}")
        return folder, progress


def check_scenario(
    plan: Plan,
    baseline: Baseline,
    bench: Bench,
    *,
    only: Sequence[str] = (),
    portable: bool = False,
    confirm: bool = False,
) -> Report:
    """Measures the scenario and compares it with a baseline; with `confirm`, measures twice what looks worse."""
    report = against_baseline(bench.run(plan), baseline, only=only, portable=portable)
    suspects = _suspects(plan, report)
    if not confirm or suspects is None:
        return report
    return confirmed(report, against_baseline(bench.run(suspects), baseline, only=only, portable=portable))


def check_against(plan: Plan, other: str, bench: Bench, *, only: Sequence[str] = (), confirm: bool = False) -> Report:
    """Measures the scenario with this parbench and with `other` in turns, and compares the two.

    `other` is `git:REF`, `python:PATH` or `itself`; the comparison with itself is stored as the noise floor.
    """
    with arms_against(other) as arms:
        title = f"{plan.scenario.name} against {other}"
        report, folder = bench.run_arms(plan, arms, title, only)
        if other == "itself":
            (folder / NOISE_FLOOR_FILE).write_text(Json().write(document(report)))
        suspects = _suspects(plan, report)
        if not confirm or suspects is None:
            return report
        return confirmed(report, bench.run_arms(suspects, arms, title, only)[0])


def with_references(plan: Plan, cell_ids: Collection[str]) -> Plan:
    """The plan with these cells, and with the references on one device that their ratios need."""
    groups = {cell.record.base_group for cell in plan.cells if cell.record.id in cell_ids}

    def is_base(record: CellRecord) -> bool:
        return record.can_be_base and record.base_group in groups

    return replace(plan, cells=tuple(cell for cell in plan.cells if cell.record.id in cell_ids or is_base(cell.record)))


def _suspects(plan: Plan, report: Report) -> Plan | None:
    """The cells that look worse, if any, and their references."""
    worse = {finding.cell for finding in report.of("regressed")}
    return with_references(plan, worse) if worse else None


def _command() -> Sequence[str]:
    return ["parbench", *sys.argv[1:]]
