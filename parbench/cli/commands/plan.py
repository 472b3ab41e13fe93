"""`parbench plan`."""

from typing import TYPE_CHECKING, Any

import click

from parbench.cli.console import say
from parbench.cli.options import scenario_argument, set_option, site_options

if TYPE_CHECKING:
    from pathlib import Path


@click.command
@scenario_argument
@set_option
@site_options
def command(scenario: "Path", overrides: tuple[str, ...], launcher: str | None, **site: Any) -> None:
    """Show the cells of SCENARIO, their layout, and what is skipped and why. Starts nothing."""
    from parbench.cli.tables import print_plan
    from parbench.launch.base import Site
    from parbench.launch.choice import choose
    from parbench.plan.reading import read_plan

    machine = choose(launcher, Site(**site), say).machine()
    print_plan(read_plan(scenario, machine, overrides))
