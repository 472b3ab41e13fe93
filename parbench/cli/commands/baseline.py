"""`parbench baseline`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.console import plain, say_problems
from parbench.cli.options import results_option, run_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.group("baseline")
def command() -> None:
    """Keep measurements under a name, to check later ones against."""


@command.command()
@run_argument
@click.option("--name", required=True, help="The baseline's name; an existing one gets one more session.")
@results_option
def save(run: str, name: str, results: "Path") -> None:
    """Add RUN (a run's folder, its id, or latest) to a baseline as its newest session."""
    from parbench.check import baselines
    from parbench.results.store import find_run, read_run

    stored = read_run(find_run(run, results))
    say_problems(stored.problems)
    baseline = baselines.save(stored, name, results / "baselines")
    path = baselines.baseline_path(name, results / "baselines")
    cells, sessions = len(baseline.sessions[-1].cells), len(baseline.sessions)
    click.echo(f"{path} holds {sessions} session{'s' * (sessions > 1)}; the newest has {cells} cells")


@command.command("list")
@results_option
def list_names(results: "Path") -> None:
    """List the baselines."""
    from parbench.check.baselines import list_baselines

    for name in list_baselines(results / "baselines"):
        click.echo(name)


@command.command()
@click.argument("name")
@results_option
def show(name: str, results: "Path") -> None:
    """Show a baseline's environment, sessions and cells."""
    from parbench.check.baselines import load, summarise_contents

    for line in summarise_contents(load(name, results / "baselines")):
        click.echo(plain(line))
