"""`parbench doctor`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.console import console
from parbench.cli.options import PATH
from parbench.system import exit_codes

if TYPE_CHECKING:
    from pathlib import Path


@click.command
@click.option(
    "--save",
    "file",
    type=PATH,
    metavar="FILE",
    help="Also measure how fast this machine computes and communicates, and keep that in FILE (YAML).",
)
@click.option("--force", is_flag=True, help="With --save: replace FILE.")
@click.option(
    "--budget",
    type=click.IntRange(1, 86_400),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="With --save: for about how long to measure.",
)
def command(file: "Path | None", budget: int, *, force: bool) -> int:
    """Tell what this machine is, and what would disturb a measurement on it."""
    if file is not None:
        from parbench.cli.machine import measure_into, require_writable

        require_writable(file, force=force)
    _examine()
    if file is not None and not measure_into(file, budget):
        return exit_codes.CELL_FAILED
    return exit_codes.OK


def _examine() -> None:
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
