"""The command line: thin commands, imports put off until one is called. Data goes to stdout, all else to stderr."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from parbench import __version__
from parbench.cli.commands.check import baseline, check
from parbench.cli.commands.run import EXIT_CELL_FAILED, plan, results_option, run, show_table
from parbench.cli.console import console, plain, say
from parbench.cli.options import FormatChoice
from parbench.cli.streams import demanding, forgiving
from parbench.system.signals import Interrupted, interruptible

EXIT_BAD_USAGE = 2


EXIT_NO_BASELINE = 4


EXIT_DEFECT = 70
"""As in sysexits.h: parbench itself is at fault. Python would say 1, which a regression says here."""


REPORTS = Path("report")


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Calls a command, which returns its exit code. What click or Python would make 1 of is a defect instead."""
        try:
            return super().invoke(ctx)
        except (EOFError, KeyboardInterrupt, OSError, SystemExit) as error:
            raise RuntimeError(f"a command ended by {type(error).__name__}") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="parbench")
def cli() -> None:
    """Measure which way of spreading a language model over your devices is fastest, and what it costs.

    \b
    parbench run scenarios/lstm_scaling.yaml    measure
    parbench table                              the latest run's table again
    parbench report                             a page with its verdict, table and charts
    parbench doctor                             what would disturb a measurement here
    """


for command in (run, plan, baseline, check):
    cli.add_command(command)


@cli.command("list")
@click.argument(
    "what", type=click.Choice(["strategies", "workloads", "scenarios", "runs", "baselines"]), default="strategies"
)
@results_option
def list_(what: str, results: Path) -> None:
    """List what can be named in a scenario, or what is stored."""
    from parbench.cli import tables

    for line in tables.lines(what, results, say):
        click.echo(plain(line))


@cli.command()
@click.argument("run", default="latest")
@results_option
@click.option(
    "--format",
    "form",
    type=FormatChoice("rows", "data", "frame"),
    default="text",
    show_default=True,
)
def table(run: str, results: Path, form: str) -> None:
    """Print the table of RUN: a run's folder, its id, or latest."""
    from parbench.results.store import find_run, read_run

    show_table(read_run(find_run(run, results)), form)


@cli.command()
@click.argument("runs", nargs=-1, metavar="[RUN…]")
@results_option
@click.option("--out", type=click.Path(path_type=Path), help="The report's folder; one below report/ if left out.")
@click.option("--format", "forms", default="html", show_default=True, help="html, png and svg, with commas between.")
def report(runs: tuple[str, ...], results: Path, out: Path | None, forms: str) -> None:
    """Render RUN (a run's folder, its id, or latest) as a page and as charts; several RUNs side by side."""
    from parbench.errors import UsageError
    from parbench.report.page import FORMATS, folder_name, write_report
    from parbench.results.store import find_run, read_run

    chosen = [form.strip() for form in forms.split(",")]
    if unknown := [form for form in chosen if form not in FORMATS]:
        raise UsageError(f"--format: there is no format '{unknown[0]}'; choose from {', '.join(FORMATS)}")
    found = [read_run(find_run(each, results)) for each in runs or ("latest",)]
    for problem in (problem for each in found for problem in each.problems):
        say(problem)
    click.echo(write_report(found, out or REPORTS / folder_name(found), chosen))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors."""
    import json

    from parbench.plan.planner import catalogue
    from parbench.scenario.schema import scenario_schema

    click.echo(json.dumps(scenario_schema(catalogue()), indent=2))


@cli.command()
def doctor() -> None:
    """Tell what this machine is, and what would disturb a measurement on it."""
    from parbench.models.base import FAMILIES
    from parbench.strategies.base import STRATEGIES
    from parbench.system.doctor import examine, render

    for registry in (STRATEGIES, FAMILIES):
        registry.names()
    render(examine({**STRATEGIES.broken, **FAMILIES.broken}), console())


def main() -> NoReturn:
    """The `parbench` command: bad usage and bad scenarios are a sentence and exit code 2, never a traceback.

    It ends here and nowhere else, whatever happens: only a regression has exit code 1.
    """
    sys.stderr, sys.stdout = forgiving(sys.stderr), demanding(sys.stdout)
    code = EXIT_DEFECT
    try:
        code = _exit_code()
    finally:
        sys.exit(code)


def _exit_code() -> int:
    """Calls the command that was asked for, and tells what went wrong."""
    try:
        with interruptible():
            code = cli.main(prog_name="parbench", standalone_mode=False)
            sys.stdout.flush()
            return code or 0
    except Interrupted as stop:
        click.echo(f"\n{stop}", err=True)
        return stop.exit_code
    except click.ClickException as refusal:
        refusal.show()
        return EXIT_BAD_USAGE
    except Exception as error:  # noqa: BLE001 - it ends here, with its traceback
        return _told(error)


def _told(error: Exception) -> int:
    from parbench.errors import BaselineError, LostNodeError, NothingMeasuredError, ParbenchError

    if not isinstance(error, ParbenchError):
        import traceback

        traceback.print_exc()
        return EXIT_DEFECT
    click.echo("\n".join(plain(line) for line in str(error).splitlines()), err=True)
    codes = {BaselineError: EXIT_NO_BASELINE, NothingMeasuredError: EXIT_CELL_FAILED, LostNodeError: EXIT_CELL_FAILED}
    return codes.get(type(error), EXIT_BAD_USAGE)
