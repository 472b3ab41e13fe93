"""`parbench check`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.console import console, say_problems, write_out
from parbench.cli.options import format_option, only_option, results_option, rounds_option, set_option

if TYPE_CHECKING:
    from pathlib import Path

    from parbench.campaign.gate import Bench
    from parbench.check.verdicts import Report
    from parbench.plan.cells import Plan

SCENARIO_SUFFIXES = (".yaml", ".yml")


@click.command
@click.argument("what", default="latest", metavar="[RUN|SCENARIO]")
@click.option("--baseline", metavar="NAME", help="Compare with this stored baseline.")
@click.option(
    "--against", metavar="git:REF|python:PATH", help="Measure SCENARIO here and there in turns, and compare the two."
)
@click.option("--aa", is_flag=True, help="Measure SCENARIO against itself, and keep the noise floor.")
@only_option
@set_option
@rounds_option
@click.option(
    "--max-rounds",
    type=click.IntRange(1),
    help="With --against and --aa: add rounds, up to so many, until every verdict is decided.",
)
@click.option("--portable", is_flag=True, help="Let ratios decide where the environment is not the baseline's.")
@click.option("--confirm", is_flag=True, help="Measure what looks worse once more before it is called regressed.")
@click.option("--strict", is_flag=True, help="Exit with 5 where noise hides what min_effect asks to find.")
@format_option("rows", "data", "cases")
@results_option
def command(
    what: str,
    baseline: str | None,
    against: str | None,
    aa: bool,
    only: tuple[str, ...],
    overrides: tuple[str, ...],
    rounds: int | None,
    max_rounds: int | None,
    portable: bool,
    confirm: bool,
    strict: bool,
    output_format: str,
    results: "Path",
) -> int:
    """Has anything become slower, bigger or worse at scaling?

    A stored RUN, or a SCENARIO that is measured now, is compared with a baseline. With --against, this machine
    measures SCENARIO now, here and there in turns.

    \b
    0 fine · 1 regression · 2 bad usage · 3 a cell failed, or nothing was measured · 4 no baseline, or one from a
    foreign environment · 5 inconclusive, with --strict
    """
    from parbench.errors import UsageError

    if [baseline is not None, against is not None, aa].count(True) != 1:
        raise UsageError("say what to compare with: one of --baseline NAME, --against git:REF|python:PATH and --aa")
    if max_rounds and baseline is not None:
        raise UsageError("--max-rounds adds rounds to two arms: use it with --against or --aa")
    if not what.endswith(SCENARIO_SUFFIXES):
        if baseline is None or confirm or overrides or rounds:
            raise UsageError("that measures anew, so it needs a scenario's file, such as scenarios/lstm_scaling.yaml")
        report = _check_stored_run(what, baseline, only, results, portable=portable)
    else:
        plan = _plan(what, overrides, rounds, only)
        if baseline is not None:
            report = _check_scenario(plan, baseline, only, results, portable=portable, confirm=confirm)
        else:
            report = _check_against(plan, against or "itself", only, results, confirm=confirm, max_rounds=max_rounds)
    _print(report, output_format, strict=strict)
    return report.exit_code(strict=strict)


def _check_stored_run(what: str, baseline: str, only: tuple[str, ...], results: "Path", *, portable: bool) -> "Report":
    from parbench.check.baselines import load
    from parbench.check.compare import against_baseline
    from parbench.results.store import find_run, read_run
    from parbench.scenario.exclude import require_matches

    stored = load(baseline, results / "baselines")
    run = read_run(find_run(what, results))
    require_matches(only, list(dict.fromkeys([*(cell.id for cell in run.record.cells), *stored.keys])))
    say_problems(run.problems)
    return against_baseline(run, stored, only=only, portable=portable)


def _check_scenario(
    plan: "Plan", baseline: str, only: tuple[str, ...], results: "Path", *, portable: bool, confirm: bool
) -> "Report":
    from parbench.campaign.gate import check_scenario
    from parbench.check.baselines import load

    stored = load(baseline, results / "baselines")
    return check_scenario(plan, stored, _bench(results), only=only, portable=portable, confirm=confirm)


def _check_against(
    plan: "Plan", other: str, only: tuple[str, ...], results: "Path", *, confirm: bool, max_rounds: int | None
) -> "Report":
    from parbench.campaign.gate import check_against

    return check_against(plan, other, _bench(results), only=only, confirm=confirm, max_rounds=max_rounds)


def _bench(results: "Path") -> "Bench":
    from parbench.campaign.gate import Bench
    from parbench.cli.progress import progress_on

    messages = console(stderr=True)
    return Bench(results, lambda: progress_on(messages))


def _plan(path: str, overrides: tuple[str, ...], rounds: int | None, only: tuple[str, ...]) -> "Plan":
    """The cells of `--only`, with the cells on one device that their ratios need."""
    from pathlib import Path

    from parbench.campaign.gate import with_references
    from parbench.plan.reading import read_plan
    from parbench.system.devices import detect

    plan = read_plan(Path(path), detect(), [*overrides, *([f"measure.rounds={rounds}"] if rounds else [])])
    return with_references(plan, {cell.record.id for cell in plan.only(*only).cells}) if only else plan


def _print(report: "Report", output_format: str, *, strict: bool) -> None:
    from parbench.check.rows import document
    from parbench.check.terminal import print_report
    from parbench.export.base import FORMATS

    if output_format == "text":
        print_report(report, console(), strict=strict)
    else:
        write_out(FORMATS[output_format]().write(document(report, strict=strict)))
