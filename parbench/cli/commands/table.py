"""`parbench table`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.options import format_option, results_option, run_argument, wide_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command
@run_argument
@results_option
@format_option("rows", "data", "frame")
@wide_option
def command(run: str, results: "Path", output_format: str, *, wide: bool) -> None:
    """Print the table of RUN, and its verdict: a run's folder, its id, or latest."""
    from parbench.cli.tables import print_run
    from parbench.results.store import find_run, read_run

    print_run(read_run(find_run(run, results)), output_format, wide=wide)
