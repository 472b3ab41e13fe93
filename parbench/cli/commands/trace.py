"""`parbench trace`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.console import say_problems
from parbench.cli.options import results_option, run_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command
@click.argument("cell")
@run_argument
@results_option
def command(cell: str, run: str, results: "Path") -> None:
    """Merge the ranks' traces of CELL, and print where they are.

    CELL is a cell's id, such as lstm/ddp/2, or a glob; RUN is a run's folder, its id, or latest. The file opens in
    https://ui.perfetto.dev. Runs have traces where they were measured with --trace.
    """
    from parbench.results.store import find_run, read_run
    from parbench.results.traces import merge_traces, select_cells

    stored = read_run(find_run(run, results))
    say_problems(stored.problems)
    for each in select_cells(stored, cell):
        click.echo(merge_traces(stored, each))
