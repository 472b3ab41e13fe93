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
@click.option("--memory", is_flag=True, help="Predict what a rank's tensors will take, on fake tensors.")
@site_options
def command(scenario: "Path", overrides: tuple[str, ...], launcher: str | None, *, memory: bool, **site: Any) -> None:
    """Show the cells of SCENARIO, their layout, and what is skipped and why. Launches nothing."""
    from parbench.campaign.rehearsals import predict_memory
    from parbench.cli.plans import print_plan
    from parbench.launch.base import Site
    from parbench.launch.choice import choose
    from parbench.plan.reading import read_plan

    machine = choose(launcher, Site(**site), say).machine()
    plan = read_plan(scenario, machine, overrides)
    print_plan(plan, predict_memory(plan) if memory else None)
