"""`parbench list`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.console import plain, say
from parbench.cli.options import results_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command
@click.argument(
    "what", type=click.Choice(["strategies", "workloads", "scenarios", "runs", "baselines"]), default="strategies"
)
@results_option
def command(what: str, results: "Path") -> None:
    """List what can be named in a scenario, or what is stored."""
    from parbench.cli.tables import list_lines

    for line in list_lines(what, results, say):
        click.echo(plain(line))
