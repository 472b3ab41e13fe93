"""`parbench baseline` and `parbench check`: thin commands, imports put off until one is called."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parbench.cli.console import console, plain, say, write_out
from parbench.cli.options import FormatChoice

if TYPE_CHECKING:
    from parbench.check.verdicts import Report
    from parbench.plan.cells import Plan
    from parbench.results.store import Run


RESULTS = Path("results")


SCENARIO_SUFFIXES = (".yaml", ".yml")


_results = click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=RESULTS,
    show_default=True,
    help="Where runs are kept, and baselines in baselines/ below.",
)


@click.group()
def baseline() -> None:
    """Keep measurements under a name, to check later ones against."""


@baseline.command()
@click.argument("run", default="latest")
@click.option("--name", required=True, help="The baseline's name; an existing one gets one more session.")
@_results
def save(run: str, name: str, results: Path) -> None:
    """Add RUN (a run's folder, its id, or latest) to a baseline as its newest session."""
    from parbench.check import baselines
    from parbench.results.store import find_run, read_run

    found = read_run(find_run(run, results))
    _tell_problems(found)
    kept = baselines.save(found, name, results / "baselines")
    path = baselines.baseline_path(name, results / "baselines")
    cells, sessions = len(kept.sessions[-1].cells), len(kept.sessions)
    click.echo(f"{path} holds {sessions} session{'s' * (sessions > 1)}; the newest has {cells} cells")


@baseline.command("list")
@_results
def list_(results: Path) -> None:
    """List the baselines."""
    from parbench.check.baselines import list_baselines

    for name in list_baselines(results / "baselines"):
        click.echo(name)


@baseline.command()
@click.argument("name")
@_results
def show(name: str, results: Path) -> None:
    """Show a baseline's environment, sessions and cells."""
    from parbench.check.baselines import describe, load

    for line in describe(load(name, results / "baselines")):
        click.echo(plain(line))


@click.command()
@click.argument("what", default="latest", metavar="[RUN|SCENARIO]")
@click.option("--baseline", "name", metavar="NAME", help="Compare with this stored baseline.")
@click.option(
    "--against", metavar="git:REF|python:PATH", help="Measure SCENARIO here and there in turns, and compare the two."
)
@click.option("--aa", is_flag=True, help="Measure SCENARIO against itself, and keep the noise floor.")
@click.option(
    "--only", multiple=True, metavar="GLOB", help="Check only the cells whose id matches; of several, any of them."
)
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a field of SCENARIO.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds of SCENARIO, instead of its own.")
@click.option("--portable", is_flag=True, help="Let ratios decide where the environment is not the baseline's.")
@click.option("--confirm", is_flag=True, help="Measure what looks worse once more before it is called regressed.")
@click.option("--strict", is_flag=True, help="Exit with 5 where noise hides what min_effect asks to find.")
@click.option(
    "--format",
    "form",
    type=FormatChoice("rows", "data", "cases"),
    default="text",
    show_default=True,
)
@_results
def check(
    what: str,
    name: str | None,
    against: str | None,
    aa: bool,
    only: tuple[str, ...],
    overrides: tuple[str, ...],
    rounds: int | None,
    portable: bool,
    confirm: bool,
    strict: bool,
    form: str,
    results: Path,
) -> int:
    """Has anything become slower, bigger or worse at scaling?

    A stored RUN, or a SCENARIO that is measured now, is compared with a baseline. With --against, this machine
    measures SCENARIO now, here and there in turns.

    \b
    0 fine · 1 regression · 2 bad usage · 3 a cell failed, or nothing was measured · 4 no baseline, or one from a
    foreign environment · 5 inconclusive, with --strict
    """
    from parbench.errors import UsageError

    if [name is not None, against is not None, aa].count(True) != 1:
        raise UsageError("say what to compare with: one of --baseline NAME, --against git:REF|python:PATH and --aa")
    plan = None
    if Path(what).suffix in SCENARIO_SUFFIXES:
        plan = _plan(Path(what), overrides, rounds, only)
    elif name is None or confirm or overrides or rounds:
        raise UsageError("that measures anew, so it needs a scenario's file, such as scenarios/lstm_scaling.yaml")
    if name is not None:
        report = _against_baseline(what, plan, name, only, results, portable=portable, confirm=confirm)
    else:
        from parbench.campaign.gate import Bench, check_against
        from parbench.cli.progress import progress_on

        assert plan is not None  # noqa: S101 - for mypy: refused above
        bench = Bench(results, console(stderr=True), progress_on)
        report = check_against(plan, against or "itself", bench, only=only, confirm=confirm)
    _print(report, form, strict=strict)
    return report.exit_code(strict=strict)


def _against_baseline(
    what: str, plan: "Plan | None", name: str, only: Sequence[str], results: Path, *, portable: bool, confirm: bool
) -> "Report":
    from parbench.check.baselines import load
    from parbench.check.compare import against_baseline

    stored = load(name, results / "baselines")
    if plan is not None:
        from parbench.campaign.gate import Bench, check_scenario
        from parbench.cli.progress import progress_on

        bench = Bench(results, console(stderr=True), progress_on)
        return check_scenario(plan, stored, bench, only=only, portable=portable, confirm=confirm)
    from parbench.results.store import find_run, read_run
    from parbench.scenario.exclude import require_matches

    run = read_run(find_run(what, results))
    require_matches(only, list(dict.fromkeys([*(cell.id for cell in run.record.cells), *stored.keys])))
    _tell_problems(run)
    return against_baseline(run, stored, only=only, portable=portable)


def _tell_problems(run: "Run") -> None:
    """Records that are left out, on stderr: they may hold any text."""
    for problem in run.problems:
        say(problem)


def _plan(path: Path, overrides: Sequence[str], rounds: int | None, only: Sequence[str]) -> "Plan":
    from parbench.campaign.gate import with_references
    from parbench.plan.planner import read_plan
    from parbench.system.devices import detect

    plan = read_plan(path, detect(), [*overrides, *([f"measure.rounds={rounds}"] if rounds else [])])
    return with_references(plan, {cell.record.id for cell in plan.only(*only).cells}) if only else plan


def _print(report: "Report", form: str, *, strict: bool) -> None:
    from parbench.check.rows import document
    from parbench.check.terminal import print_report
    from parbench.export.base import FORMATS

    if form == "text":
        print_report(report, console(), strict=strict)
    else:
        write_out(FORMATS[form]().write(document(report, strict=strict)))
