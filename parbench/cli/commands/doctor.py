"""`parbench doctor`."""

import click

from parbench.cli.console import console


@click.command
def command() -> None:
    """Tell what this machine is, and what would disturb a measurement on it."""
    from parbench.models.base import FAMILIES
    from parbench.strategies.base import STRATEGIES
    from parbench.system.devices import detect
    from parbench.system.doctor.examination import examine, render

    for registry in (STRATEGIES, FAMILIES):
        registry.names()
    more = []
    if detect().gpus:
        # Imported here, because it imports torch, which no other check needs.
        from parbench.measure.peaks import check_peaks

        more.append(check_peaks)
    render(examine({**STRATEGIES.broken, **FAMILIES.broken}, *more), console())
