"""`parbench run` and `parbench plan`: thin commands, imports put off until one is called."""

import contextlib
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parbench.cli.console import console, plain, say, write_out
from parbench.cli.options import BatchCommand
from parbench.cli.streams import forgiving
from parbench.errors import UnwrittenError, UsageError
from parbench.system.signals import Interrupted

if TYPE_CHECKING:
    from rich.console import Console

    from parbench.launch.base import Launcher
    from parbench.plan.cells import Plan
    from parbench.results.store import Run
    from parbench.system.devices import Machine


EXIT_CELL_FAILED = 3


RESULTS = Path("results")


_scenario = click.argument("scenario", type=click.Path(path_type=Path))


_set = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override a field, such as workloads.lstm.seq_len=128.",
)


results_option = click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Where runs are kept."
)


def _site(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """The options that say where to launch."""
    options = (
        click.option("--launcher", metavar="NAME", help="local, torchrun or slurm; what the environment asks for."),
        click.option("--nodes", type=click.IntRange(1), help="How many nodes run this same command."),
        click.option("--node-rank", type=click.IntRange(0), help="Which of them this is; 0 keeps the results."),
        click.option("--rendezvous", metavar="HOST:PORT", help="Where node 0 waits for the others."),
        click.option(
            "--rendezvous-timeout", type=click.IntRange(1, 604_800), metavar="SECONDS", help="And for how long."
        ),
        click.option(
            "--secret-file",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="What all nodes have, and nobody else; or PARBENCH_SECRET.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=BatchCommand)
@click.argument("scenarios", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SCENARIO…")
@_set
@click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Measure only the cells whose id matches, such as 'lstm/ddp/*'; of several, any of them.",
)
@click.option("--rounds", type=click.IntRange(1), help="Rounds, instead of the scenario's.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder; a new one below --results if left out.")
@results_option
@click.option("--resume", is_flag=True, help="Go on with the run in --out, or else the latest of this scenario.")
@click.option("--dry-run", is_flag=True, help="Show the plan and start nothing.")
@_site
@click.option("--submit", is_flag=True, help="Hand it to the launcher's batch system; its options follow after --.")
def run(
    scenarios: tuple[Path, ...],
    overrides: tuple[str, ...],
    only: tuple[str, ...],
    rounds: int | None,
    out: Path | None,
    results: Path,
    resume: bool,
    dry_run: bool,
    launcher: str | None,
    submit: bool,
    batch_options: tuple[str, ...],
    **site: Any,
) -> int:
    """Measure every cell of SCENARIO and print the table."""
    from parbench.campaign.run import run_campaign
    from parbench.campaign.submit import submit_campaign
    from parbench.cli.progress import progress_on
    from parbench.launch.choice import choose_class
    from parbench.plan.planner import read_scenario

    if rounds is not None:
        overrides = (*overrides, f"measure.rounds={rounds}")
    if submit:
        kind, names = choose_class(launcher, say), [read_scenario(path, overrides).name for path in scenarios]
        _require_folders_apart(names, out, resume)
        for path, name in zip(scenarios, names, strict=True):
            new = out is None
            folder = _run_folder(out, results, name, resume, several=len(scenarios) > 1).absolute()
            words = _resume_words(path.absolute(), folder, overrides, only)
            with _gone_if_empty(folder) if new else contextlib.nullcontext():
                submit_campaign(kind, name, folder, words, batch_options, site=site, resume=resume, dry_run=dry_run)
        return 0
    launch = _launcher(launcher, site)
    plans = [_read_plan(path, overrides, only, launch.machine()) for path in scenarios]
    if dry_run:
        for plan in plans:
            _print_plan(plan)
        return 0
    _require_folders_apart([plan.scenario.name for plan in plans], out, resume)
    # Nor does a campaign end, or the next one not begin, because nobody reads its table.
    failed, sys.stdout, messages = False, forgiving(sys.stdout), console(stderr=True)
    if launch.follower:
        _follow(plans, launch, messages)
        return 0
    for path, plan in zip(scenarios, plans, strict=True):
        folder = _run_folder(out, results, plan.scenario.name, resume, several=len(plans) > 1)
        messages.print(
            f"Measuring {plain(plan.scenario.name)} into {folder}", highlight=False, markup=False, soft_wrap=True
        )
        again = [*_resume_words(path, folder, overrides, only), *_site_words({"launcher": launcher, **site})]
        with _gone_if_empty(folder) if out is None else contextlib.nullcontext(), _launching(launch, folder, again):
            measured = run_campaign(
                plan, folder, launch, progress_on(messages), command=["parbench", *sys.argv[1:]], resume=resume
            )
        all_well = show_table(measured, "text")
        failed |= bool(plan.broken) or not all_well
        say(f"Results are in {folder}")
    return EXIT_CELL_FAILED if failed else 0


@click.command()
@_scenario
@_set
@_site
def plan(scenario: Path, overrides: tuple[str, ...], launcher: str | None, **site: Any) -> None:
    """Show the cells of SCENARIO, their layout, and what is skipped and why. Starts nothing."""
    _print_plan(_read_plan(scenario, overrides, (), _launcher(launcher, site).machine()))


def _launcher(name: str | None, site: Mapping[str, Any]) -> "Launcher":
    from parbench.launch.base import Site
    from parbench.launch.choice import choose

    return choose(name, Site(**site), say)


@contextlib.contextmanager
def _gone_if_empty(folder: Path) -> Iterator[None]:
    """Removes a new folder that nothing was put into."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _launching(launch: "Launcher", folder: Path, again: Sequence[str]) -> Iterator[None]:
    """Around a campaign into `folder`, which the words `again` go on with."""
    from parbench.results.store import RUN_FILE

    kept = f"what was measured is kept; go on with: {shlex.join(['parbench', *again])}"
    try:
        launch.start()
        yield
    except Interrupted as stop:
        stop.advice = f"; {kept}" if (folder / RUN_FILE).exists() else "; nothing was measured"
        raise
    except UnwrittenError as error:
        if not (folder / RUN_FILE).exists():
            raise
        raise UnwrittenError(f"{error}; make room there: {kept}") from None
    finally:
        launch.close()


def _follow(plans: "Sequence[Plan]", launch: "Launcher", messages: "Console") -> None:
    """Takes part in campaigns that another node leads, and keeps nothing here."""
    from parbench.campaign.run import follow_campaign

    try:
        launch.start()
        for plan in plans:
            messages.print(f"Taking part in {plain(plan.scenario.name)}; node 0 keeps the results", markup=False)
            assert launch.follower is not None  # noqa: S101 - for mypy: that is why it is called
            follow_campaign(plan, launch.follower)
    finally:
        launch.close()


def _read_plan(path: Path, overrides: tuple[str, ...], only: tuple[str, ...], machine: "Machine") -> "Plan":
    from parbench.plan.planner import read_plan

    return read_plan(path, machine, overrides).only(*only)


def _run_folder(out: Path | None, results: Path, name: str, resume: bool, *, several: bool) -> Path:
    from parbench.campaign.run import folder_name, new_folder
    from parbench.results.store import latest_of

    if out is not None:
        return out / folder_name(name) if several else out
    unfinished = latest_of(name, results, say) if resume else None
    return unfinished or new_folder(results, name)


def _require_folders_apart(names: Sequence[str], out: Path | None, resume: bool) -> None:
    """Raises `UsageError` where two scenarios would go into one folder; new ones below `results` never do."""
    from parbench.campaign.run import folder_name

    folders = Counter(map(folder_name, names)) if out or resume else {}
    for folder, count in folders.items():
        if count > 1:
            raise UsageError(
                f"{count} of these scenarios would be kept in one folder, '{folder}'; "
                "give them other names, or run them one after another, each with an --out of its own"
            )


def _resume_words(path: Path, folder: Path, overrides: tuple[str, ...], only: tuple[str, ...]) -> list[str]:
    """What to tell parbench to go on with the very same cells."""
    sets = [word for override in overrides for word in ("--set", override)]
    chosen = [word for glob in only for word in ("--only", glob)]
    return ["run", str(path), "--resume", "--out", str(folder), *sets, *chosen]


def _site_words(site: Mapping[str, Any]) -> list[str]:
    """The options that say where to launch, as they were written."""
    given = {name: value for name, value in site.items() if value is not None}
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _print_plan(plan: "Plan") -> None:
    from parbench.cli.tables import plan_table

    console().print(plan_table(plan))


def show_table(run: "Run", form: str) -> bool:
    """Prints the run's table to stdout; whether every cell that could run here did, and something was measured."""
    from parbench.export.base import FORMATS
    from parbench.export.cells import cells_document
    from parbench.export.terminal import print_table
    from parbench.results.tables import cells_table

    for problem in run.problems:
        say(problem)
    cells = cells_table(run)
    if form == "text":
        print_table(cells, console())
    else:
        write_out(FORMATS[form]().write(cells_document(cells)))
    statuses, parities = set(cells["status"].tolist()), set(cells["parity"].tolist())
    return "ok" in statuses and statuses <= {"ok", "skipped"} and "failed" not in parities
