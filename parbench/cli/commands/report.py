"""`parbench report`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.console import say_problems
from parbench.cli.options import PATH, each_option, results_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command
@click.argument("runs", nargs=-1, metavar="[RUN…]")
@results_option
@click.option("--out", type=PATH, help="The report's folder; one below report/ if left out.")
@click.option("--format", "formats", default="html", show_default=True, help="html, png and svg, with commas between.")
@each_option
def command(runs: tuple[str, ...], results: "Path", out: "Path | None", formats: str, *, each: bool) -> None:
    """Render RUN (a run's folder, its id, or latest) as a page and as charts.

    Several RUNs of one scenario in one environment are pooled as sessions; others stand side by side.
    """
    from parbench.errors import UsageError
    from parbench.report.page import FORMATS, write_report
    from parbench.report.place import REPORTS, folder_name
    from parbench.results.sessions import pool_sessions
    from parbench.results.store import find_run, read_run

    names = [name.strip() for name in formats.split(",")]
    if unknown := [name for name in names if name not in FORMATS]:
        raise UsageError(f"--format: there is no format '{unknown[0]}'; choose from {', '.join(FORMATS)}")
    stored = [read_run(find_run(selector, results)) for selector in runs or ("latest",)]
    stored = stored if each else pool_sessions(stored)
    for run in stored:
        say_problems(run.problems)
    click.echo(write_report(stored, out or REPORTS / folder_name(stored), names))
