"""`parbench table`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.options import (
    breakdown_option,
    communication_option,
    each_option,
    format_option,
    machine_option,
    memory_option,
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
@memory_option
@communication_option
@machine_option
@wide_option
def command(
    runs: tuple[str, ...],
    results: "Path",
    output_format: str,
    machine_file: "Path | None",
    *,
    each: bool,
    wide: bool,
    **views: bool,
) -> None:
    """Print the table of RUN, and its verdict: a run's folder, its id, or latest.

    Several RUNs of one scenario in one environment are pooled as sessions; of others, each has a table of its own.
    """
    from parbench.cli.tables import VIEWS, print_run, print_runs, view_beside
    from parbench.errors import UsageError
    from parbench.results.sessions import pool_sessions
    from parbench.results.store import find_run, read_run

    chosen = [name for name, is_chosen in views.items() if is_chosen]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} are two tables: ask for one of them")
    if machine_file and chosen != ["communication"]:
        raise UsageError("--machine is what --communication compares with: ask for that table as well")
    stored = [read_run(find_run(selector, results)) for selector in runs or ("latest",)]
    view = view_beside(machine_file) if machine_file else VIEWS[chosen[0]] if chosen else None
    print_runs(stored if each else pool_sessions(stored), output_format, view or print_run, wide=wide)
