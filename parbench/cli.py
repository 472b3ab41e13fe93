"""The command line: thin commands, imports put off until one is called. Data goes to stdout, all else to stderr."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parbench import __version__
from parbench.batch_options import BatchCommand
from parbench.check_cli import baseline, check
from parbench.interrupt import Interrupted, interruptible
from parbench.streams import forgiving

if TYPE_CHECKING:
    from rich.console import Console

    from parbench.cells import Plan
    from parbench.devices import Machine
    from parbench.launch.base import Launcher
    from parbench.results.store import Run

EXIT_BAD_USAGE = 2
EXIT_CELL_FAILED = 3
EXIT_NO_BASELINE = 4

RESULTS = Path("results")
REPORTS = Path("report")

_scenario = click.argument("scenario", type=click.Path(path_type=Path))
_set = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override a field, such as workloads.lstm.seq_len=128.",
)
_results = click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Where runs are kept."
)


def _site(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where to launch."""
    options = (
        click.option("--launcher", metavar="NAME", help="local, torchrun or slurm; what the environment asks for."),
        click.option("--nodes", type=click.IntRange(1), help="How many nodes run this same command."),
        click.option("--node-rank", type=click.IntRange(0), help="Which of them this is; 0 keeps the results."),
        click.option("--rendezvous", metavar="HOST:PORT", help="Where node 0 waits for the others."),
        click.option("--rendezvous-timeout", type=click.FloatRange(1), metavar="SECONDS", help="And for how long."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="parbench")
def cli() -> None:
    """Measure which way of spreading a language model over your devices is fastest, and what it costs.

    \b
    parbench run scenarios/lstm_scaling.yaml    measure
    parbench table                              the latest run's table again
    parbench report                             a page with its verdict, table and charts
    parbench doctor                             what would disturb a measurement here
    """


cli.add_command(baseline)
cli.add_command(check)


@cli.command(cls=BatchCommand)
@click.argument("scenarios", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SCENARIO…")
@_set
@click.option("--only", metavar="GLOB", help="Measure only the cells whose id matches, such as 'lstm/ddp/*'.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds, instead of the scenario's.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder; a new one below --results if left out.")
@_results
@click.option("--resume", is_flag=True, help="Go on with the run in --out, or else the latest of this scenario.")
@click.option("--dry-run", is_flag=True, help="Show the plan and start nothing.")
@_site
@click.option("--submit", is_flag=True, help="Hand it to the launcher's batch system; its options follow after --.")
def run(
    scenarios: tuple[Path, ...],
    overrides: tuple[str, ...],
    only: str | None,
    rounds: int | None,
    out: Path | None,
    results: Path,
    resume: bool,
    dry_run: bool,
    launcher: str | None,
    submit: bool,
    batch_options: tuple[str, ...],
    **site: Any,
) -> None:
    """Measure every cell of SCENARIO and print the table."""
    from parbench.cells import read_scenario
    from parbench.launch.choice import chosen
    from parbench.progress import progress_on
    from parbench.run import run_campaign
    from parbench.submit import submit_campaign

    if rounds is not None:
        overrides = (*overrides, f"measure.rounds={rounds}")
    if submit:
        for path in scenarios:
            name = read_scenario(path, overrides).name
            folder = _run_folder(out, results, name, resume, several=len(scenarios) > 1).absolute()
            words = _resume_words(path.absolute(), folder, overrides, only)
            kind = chosen(launcher, _say)
            submit_campaign(kind, name, folder, words, batch_options, site=site, resume=resume, dry_run=dry_run)
        return
    launch = _launcher(launcher, site)
    plans = [_read_plan(path, overrides, only, launch.machine()) for path in scenarios]
    if dry_run:
        for plan in plans:
            _print_plan(plan)
        return
    # Nor does a campaign end, or the next one not begin, because nobody reads its table.
    failed, sys.stdout, console = False, forgiving(sys.stdout), _console(stderr=True)
    if launch.follower:
        _follow(plans, launch, console)
        return
    for path, plan in zip(scenarios, plans, strict=True):
        folder = _run_folder(out, results, plan.scenario.name, resume, several=len(plans) > 1)
        console.print(
            f"Measuring {_plain(plan.scenario.name)} into {folder}", highlight=False, markup=False, soft_wrap=True
        )
        again = [*_resume_words(path, folder, overrides, only), *_site_words({"launcher": launcher, **site})]
        with _launching(launch, folder, again, new=out is None):
            measured = run_campaign(
                plan, folder, launch, progress_on(console), command=["parbench", *sys.argv[1:]], resume=resume
            )
        failed |= bool(plan.broken) or not _show(measured, "text")
        _say(f"Results are in {folder}")
    if failed:
        sys.exit(EXIT_CELL_FAILED)


@cli.command()
@_scenario
@_set
@_site
def plan(scenario: Path, overrides: tuple[str, ...], launcher: str | None, **site: Any) -> None:
    """Show the cells of SCENARIO, their layout, and what is skipped and why. Starts nothing."""
    _print_plan(_read_plan(scenario, overrides, None, _launcher(launcher, site).machine()))


@cli.command("list")
@click.argument(
    "what", type=click.Choice(["strategies", "workloads", "scenarios", "runs", "baselines"]), default="strategies"
)
@_results
def list_(what: str, results: Path) -> None:
    """List what can be named in a scenario, or what is stored."""
    from parbench import listing

    for line in listing.lines(what, results, _say):
        click.echo(_plain(line))


@cli.command()
@click.argument("run", default="latest")
@_results
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "json", "markdown", "parquet"]),
    default="text",
    show_default=True,
)
def table(run: str, results: Path, form: str) -> None:
    """Print the table of RUN: a run's folder, its id, or latest."""
    from parbench.results.store import find_run, read_run

    _show(read_run(find_run(run, results)), form)


@cli.command()
@click.argument("runs", nargs=-1, metavar="[RUN…]")
@_results
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
    found = [read_run(find_run(run, results)) for run in runs or ("latest",)]
    for problem in (problem for run in found for problem in run.problems):
        _say(problem)
    click.echo(write_report(found, out or REPORTS / folder_name(found), chosen))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors."""
    import json

    from parbench.cells import catalogue
    from parbench.schema import scenario_schema

    click.echo(json.dumps(scenario_schema(catalogue()), indent=2))


@cli.command()
def doctor() -> None:
    """Tell what this machine is, and what would disturb a measurement on it."""
    from parbench.doctor import examine, render
    from parbench.strategies.base import STRATEGIES
    from parbench.workloads.base import FAMILIES

    for registry in (STRATEGIES, FAMILIES):
        registry.names()
    render(examine({**STRATEGIES.broken, **FAMILIES.broken}), _console())


def main() -> None:
    """The `parbench` command: bad usage and bad scenarios are a sentence and exit code 2, never a traceback."""
    sys.stderr = forgiving(sys.stderr)
    with _errors_as_sentences(), interruptible():
        cli(prog_name="parbench")


@contextlib.contextmanager
def _errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except Interrupted as stop:
        click.echo(f"\n{stop}", err=True)
        sys.exit(stop.exit_code)
    except Exception as error:
        from parbench.errors import BaselineError, LostNodeError, NothingMeasuredError, ParbenchError

        if not isinstance(error, ParbenchError):
            raise
        click.echo("\n".join(_plain(line) for line in str(error).splitlines()), err=True)
        codes = {
            BaselineError: EXIT_NO_BASELINE,
            NothingMeasuredError: EXIT_CELL_FAILED,
            LostNodeError: EXIT_CELL_FAILED,
        }
        sys.exit(codes.get(type(error), EXIT_BAD_USAGE))


def _console(*, stderr: bool = False) -> "Console":
    """A console as wide as what is printed where there is no terminal: a piped table is not to be cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 300, highlight=False, emoji=False)


def _say(sentence: str) -> None:
    click.echo(_plain(sentence), err=True)


def _plain(text: str) -> str:
    from parbench.results.export import plain

    return plain(text)


def _launcher(name: str | None, site: Mapping[str, Any]) -> "Launcher":
    from parbench.launch.base import Site
    from parbench.launch.choice import choose

    return choose(name, Site(**site), _say)


@contextlib.contextmanager
def _launching(launch: "Launcher", folder: Path, again: Sequence[str], *, new: bool) -> Iterator[None]:
    """Around a campaign into `folder`, which the words `again` go on with; one that is `new` goes if it stays empty."""
    from parbench.results.store import RUN_FILE

    try:
        launch.start()
        yield
    except Interrupted as stop:
        kept = f"; what was measured is kept; go on with: {shlex.join(['parbench', *again])}"
        stop.advice = kept if (folder / RUN_FILE).exists() else "; nothing was measured"
        raise
    finally:
        launch.close()
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _follow(plans: "Sequence[Plan]", launch: "Launcher", console: "Console") -> None:
    """Takes part in campaigns that another node leads, and keeps nothing here."""
    from parbench.run import follow_campaign

    try:
        launch.start()
        for plan in plans:
            console.print(f"Taking part in {_plain(plan.scenario.name)}; node 0 keeps the results", markup=False)
            assert launch.follower is not None  # noqa: S101 - for mypy: that is why it is called
            follow_campaign(plan, launch.follower)
    finally:
        launch.close()


def _read_plan(path: Path, overrides: tuple[str, ...], only: str | None, machine: "Machine") -> "Plan":
    from parbench.cells import read_plan

    found = read_plan(path, machine, overrides)
    return found if only is None else found.only(only)


def _run_folder(out: Path | None, results: Path, name: str, resume: bool, *, several: bool) -> Path:
    from parbench.results.store import latest_of
    from parbench.run import folder_name, new_folder

    if out is not None:
        return out / folder_name(name) if several else out
    unfinished = latest_of(name, results, _say) if resume else None
    return unfinished or new_folder(results, name)


def _resume_words(path: Path, folder: Path, overrides: tuple[str, ...], only: str | None) -> list[str]:
    """What to tell parbench to go on with the very same cells."""
    sets = [word for override in overrides for word in ("--set", override)]
    chosen = ["--only", only] if only is not None else []
    return ["run", str(path), "--resume", "--out", str(folder), *sets, *chosen]


def _site_words(site: Mapping[str, Any]) -> list[str]:
    """The options that say where to launch, as they were written."""
    given = {name: value for name, value in site.items() if value is not None}
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _print_plan(plan: "Plan") -> None:
    from parbench.listing import plan_table

    _console().print(plan_table(plan))


def _show(run: "Run", form: str) -> bool:
    """Prints the run's table to stdout; whether every cell that could run here did, and something was measured."""
    from parbench.results import export
    from parbench.results.tables import cells_table

    for problem in run.problems:
        _say(problem)
    cells = cells_table(run)
    match form:
        case "csv":
            click.echo(export.to_csv(cells), nl=False)
        case "json":
            click.echo(export.to_json(cells), nl=False)
        case "markdown":
            click.echo(export.to_markdown(cells), nl=False)
        case "parquet":
            sys.stdout.buffer.write(export.to_parquet(cells))
        case _:
            export.print_table(cells, _console())
    statuses, parities = set(cells["status"].tolist()), set(cells["parity"].tolist())
    return "ok" in statuses and statuses <= {"ok", "skipped"} and "failed" not in parities
