"""`parbench predict`."""

from typing import TYPE_CHECKING

import click

from parbench.cli.options import PATH, set_option
from parbench.system import exit_codes

if TYPE_CHECKING:
    from pathlib import Path


@click.command
@click.argument("scenario", type=PATH, required=False)
@click.option("--cluster", metavar="FILE|NAME", help="A cluster's YAML file, or one that comes with parbench.")
@click.option("--devices", metavar="N[,N…]", help="How many of its devices; by default all of them.")
@click.option("--top", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many layouts to show.")
@click.option("--explain", metavar="LAYOUT", help="Where the time and memory of a layout go; first is the best one.")
@click.option("--against", type=PATH, metavar="TABLE.csv", help="Judge the planner on measured rows instead.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "csv", "json", "html"]),
    default="text",
    show_default=True,
)
@set_option
def command(
    scenario: "Path | None",
    cluster: str | None,
    devices: str | None,
    top: int,
    explain: str | None,
    against: "Path | None",
    output_format: str,
    overrides: tuple[str, ...],
) -> int:
    """Predict the fastest layouts of SCENARIO on a cluster that one does not have. Measures nothing."""
    from parbench.cli.predictions import Question, print_judgement, print_predictions
    from parbench.errors import UsageError

    if against is not None:
        if scenario is not None or cluster is not None:
            raise UsageError("--against judges the planner on a table: leave SCENARIO and --cluster out")
        print_judgement(against, output_format)
        return exit_codes.OK
    if scenario is None or cluster is None:
        raise UsageError("say which SCENARIO on which --cluster FILE, or judge the planner with --against TABLE.csv")
    question = Question(
        scenario=scenario, cluster=cluster, devices=devices, overrides=overrides, top=top, explain=explain
    )
    return exit_codes.OK if print_predictions(question, output_format) else exit_codes.CELL_FAILED
