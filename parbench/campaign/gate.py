"""The gate: measures a scenario, compares it, and measures once more the cells that look worse."""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from parbench.campaign.against import Decided, run_arms
from parbench.campaign.arms import Arms, arms_against
from parbench.campaign.progress import Progress
from parbench.campaign.run import new_folder, run_campaign
from parbench.check.baselines import Baseline
from parbench.check.compare import against_baseline, confirmed
from parbench.check.looks import Looks, looks_between
from parbench.check.rows import document
from parbench.check.two_arms import against_arm, is_gated
from parbench.check.verdicts import Report
from parbench.errors import UsageError
from parbench.export.json import Json
from parbench.figures.definitions import gated_figures
from parbench.launch.local.launcher import LocalLauncher
from parbench.plan.cells import Plan
from parbench.records.cell import CellRecord
from parbench.results.store import Run
from parbench.scenario.specs import CheckSpec

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

    def run_arms(self, plan: Plan, arms: Arms, decided: Decided, looks: Looks | None) -> "Measured":
        """Measures both arms in turns; with `looks`, until it is `decided` at one of them or all are passed."""
        folder, progress = self._begin(plan)
        candidate, base, notes = run_arms(
            plan, arms, folder, progress, command=_command(), looks=looks, decided=decided
        )
        return Measured(folder, (candidate, base), tuple(notes))

    def _begin(self, plan: Plan) -> tuple[Path, Progress]:
        """A new folder and the view of the campaign that measures into it."""
        folder, progress = new_folder(self.results, plan.scenario.name), self.new_progress()
        progress.show_sentence(f"Measuring into {folder}")
        return folder, progress


@dataclass(frozen=True)
class Measured:
    """Two arms as they were measured: the folder of both, candidate and base, and sentences on how they differ."""

    folder: Path
    runs: tuple[Run, Run]
    notes: tuple[str, ...]


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
    plan = plan.unexplained()
    run = bench.run(plan)
    report = against_baseline(run, baseline, only=only, portable=portable)
    suspects = _suspects(plan, report)
    if not confirm or suspects is None:
        return report
    again = bench.run(suspects)
    return confirmed(report, against_baseline(run, baseline, again=again, only=only, portable=portable))


def check_against(
    plan: Plan,
    other: str,
    bench: Bench,
    *,
    only: Sequence[str] = (),
    confirm: bool = False,
    max_rounds: int | None = None,
) -> Report:
    """Measures the scenario with this parbench and with `other` in turns, and compares the two.

    `other` is `git:REF`, `python:PATH` or `itself`; the comparison with itself is stored as the noise floor. With
    `max_rounds` the campaign gets more rounds, up to so many, as long as a gated comparison is undecided.

    Raises `UsageError` where `max_rounds` are fewer than the scenario's rounds, and where nothing in the gate can be
    compared between two arms.
    """
    looks = _looks(plan.scenario.measure.rounds, max_rounds)
    _require_gate(plan.scenario.check)
    title = f"{plan.scenario.name} against {other}"
    with arms_against(other) as arms:

        def compare(candidate: Run, base: Run, again: tuple[Run, Run] | None = None) -> Report:
            return against_arm(candidate, base, title, again=again, looks=None if again else looks, only=only)

        def decided(candidate: Run, base: Run) -> bool:
            return not any(each.gated and each.undecided for each in compare(candidate, base).findings)

        measured = bench.run_arms(plan, arms, decided, looks)
        report = compare(*measured.runs)
        report = replace(report, notes=(*report.notes, *_rounds_taken(measured, looks), *measured.notes))
        if other == "itself":
            (measured.folder / NOISE_FLOOR_FILE).write_text(Json().write(document(report)))
        suspects = _suspects(plan, report)
        if not confirm or suspects is None:
            return report
        again = bench.run_arms(suspects, arms, decided, None)
        return confirmed(report, compare(*measured.runs, again=again.runs))


def _looks(rounds: int, max_rounds: int | None) -> Looks | None:
    if max_rounds is None:
        return None
    if max_rounds < rounds:
        raise UsageError(f"--max-rounds {max_rounds} is fewer than the first {rounds} rounds: ask for at least as many")
    return looks_between(rounds, max_rounds)


def _require_gate(spec: CheckSpec) -> None:
    """Raises `UsageError` for a gate of ratios alone."""
    if not any(is_gated(figure, spec) for figure in gated_figures().values()):
        raise UsageError(
            f"check.gate has only ratios ({', '.join(spec.gate)}), which do not decide between two arms: "
            "add step_time_min_s or tokens_per_s, which are compared within rounds"
        )


def _rounds_taken(measured: Measured, looks: Looks | None) -> list[str]:
    if looks is None:
        return []
    taken, most = measured.runs[0].record.rounds, looks.rounds[-1]
    ending = "all that were allowed" if taken == most else f"of {most} at most: every verdict was decided"
    return [f"{taken} rounds were measured, {ending}. The p-values account for every look at the data."]


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
