"""`parbench run`."""

from typing import TYPE_CHECKING, Any

import click

from parbench.cli.console import console, drop_unwritable_output, say
from parbench.cli.options import (
    PATH,
    BatchCommand,
    only_option,
    results_option,
    rounds_option,
    set_option,
    site_options,
    wide_option,
)
from parbench.system import exit_codes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from parbench.cli.run_request import RunRequest
    from parbench.launch.base import Follower, Launcher
    from parbench.plan.cells import Plan


@click.command(cls=BatchCommand)
@click.argument("scenarios", nargs=-1, required=True, type=PATH, metavar="SCENARIO…")
@set_option
@only_option
@rounds_option
@click.option("--out", type=PATH, help="The run's folder; a new one below --results if left out.")
@results_option
@click.option("--resume", is_flag=True, help="Go on with the run in --out, or else the latest of this scenario.")
@click.option("--dry-run", is_flag=True, help="Show the plan and start nothing.")
@click.option("--trace", is_flag=True, help="Keep all events of the watched steps, for parbench trace.")
@wide_option
@site_options
@click.option("--submit", is_flag=True, help="Hand it to the launcher's batch system; its options follow after --.")
def command(
    *,
    submit: bool,
    dry_run: bool,
    wide: bool,
    trace: bool,
    batch_options: tuple[str, ...],
    rounds: int | None,
    **options: Any,
) -> int:
    """Measure every cell of SCENARIO and print the table and the verdict."""
    from parbench.cli.plans import print_plan
    from parbench.cli.run_request import RunRequest
    from parbench.launch.base import Site
    from parbench.launch.choice import choose

    request = RunRequest.from_options(options, rounds, trace=trace)
    if submit:
        return _submit(request, batch_options, dry_run=dry_run)
    launcher = choose(request.launcher, Site(**request.site), say)
    plans = request.plans(launcher.machine())
    if dry_run:
        for plan in plans:
            print_plan(plan)
        return exit_codes.OK
    request.require_separate_folders([plan.scenario.name for plan in plans])
    drop_unwritable_output()
    if launcher.follower is not None:
        return _follow(plans, launcher, launcher.follower)
    successes = [
        _measure(request, path, plan, launcher, wide=wide) for path, plan in zip(request.scenarios, plans, strict=True)
    ]
    return exit_codes.OK if all(successes) else exit_codes.CELL_FAILED


def _submit(request: "RunRequest", batch_options: tuple[str, ...], *, dry_run: bool) -> int:
    """Hands the campaign of each scenario to a batch system, and prints what that calls its jobs."""
    from parbench.campaign.submit import submit_campaign
    from parbench.launch.choice import choose_class
    from parbench.plan.reading import read_scenario

    launcher = choose_class(request.launcher, say)
    names = [read_scenario(path, request.overrides).name for path in request.scenarios]
    request.require_separate_folders(names)
    for path, name in zip(request.scenarios, names, strict=True):
        folder = request.folder(name).absolute()
        with request.tidy(folder):
            number = submit_campaign(
                launcher,
                name,
                folder,
                request.resume_arguments(path.absolute(), folder),
                batch_options,
                say=lambda text: click.echo(text, err=True),
                site=request.site,
                resume=request.resume,
                dry_run=dry_run,
            )
        if number is not None:
            click.echo(number)
    return exit_codes.OK


def _follow(plans: "Sequence[Plan]", launcher: "Launcher", follower: "Follower") -> int:
    """Takes part in campaigns that another node leads, and keeps nothing on this node."""
    from parbench.campaign.run import follow_campaign

    try:
        launcher.start()
        for plan in plans:
            say(f"Taking part in {plan.scenario.name}; node 0 keeps the results")
            follow_campaign(plan, follower)
    finally:
        launcher.close()
    return exit_codes.OK


def _measure(request: "RunRequest", path: "Path", plan: "Plan", launcher: "Launcher", *, wide: bool) -> bool:
    """Measures one scenario and prints its table. Returns whether every cell that can run here was measured well."""
    from parbench.campaign.run import run_campaign
    from parbench.cli.progress import progress_on
    from parbench.cli.run_request import this_command
    from parbench.cli.tables import print_run
    from parbench.cli.verdicts import report_advice

    folder, messages = request.folder(plan.scenario.name), console(stderr=True)
    say(f"Measuring {plan.scenario.name} into {folder}")
    with request.tidy(folder), request.resume_advice(path, folder):
        try:
            launcher.start()
            run = run_campaign(
                plan, folder, launcher, progress_on(messages), command=this_command(), resume=request.resume
            )
        finally:
            launcher.close()
    is_good = print_run(run, "text", wide=wide)
    say(f"Results are in {folder}")
    say(report_advice(run))
    return is_good and not plan.broken
