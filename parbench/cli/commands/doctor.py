"""`parbench doctor`."""

import click

from parbench.cli.console import console


@click.command
def command() -> None:
    """Tell what this machine is, and what would disturb a measurement on it."""
    from parbench.models.base import FAMILIES
    from parbench.strategies.base import STRATEGIES
    from parbench.system.doctor.examination import examine, render

    for registry in (STRATEGIES, FAMILIES):
        registry.names()
    render(examine({**STRATEGIES.broken, **FAMILIES.broken}), console())
