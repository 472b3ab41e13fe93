"""`parbench table`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.options import (
    breakdown_option,
    each_option,
    format_option,
    results_option,
    waterfall_option,
    wide_option,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command
@click.argument("runs", nargs=-1, metavar="[RUN…]")
@results_option
@format_option("rows", "data", "frame")
@each_option
@breakdown_option
@waterfall_option
@wide_option
def command(
    runs: tuple[str, ...],
    results: "Path",
    output_format: str,
    *,
    each: bool,
    breakdown: bool,
    waterfall: bool,
    wide: bool,
) -> None:
    """Print the table of RUN, and its verdict: a run's folder, its id, or latest.

    Several RUNs of one scenario in one environment are pooled as sessions; of others, each has a table of its own.
    """
    from parbench.cli.tables import print_breakdown_of, print_run, print_runs, print_waterfall_of
    from parbench.errors import UsageError
    from parbench.results.sessions import pool_sessions
    from parbench.results.store import find_run, read_run

    if breakdown and waterfall:
        raise UsageError("--breakdown and --waterfall are two tables: ask for one of them")
    stored = [read_run(find_run(selector, results)) for selector in runs or ("latest",)]
    show = print_breakdown_of if breakdown else print_waterfall_of if waterfall else print_run
    print_runs(stored if each else pool_sessions(stored), output_format, show, wide=wide)
