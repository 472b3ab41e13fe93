"""Arguments and options that several commands share."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

    from parbench.export.base import Part

    Choice = click.Choice[str]
else:
    Choice = click.Choice  # not generic before click 8.2

C = TypeVar("C", bound=Callable[..., Any])


class PathType(click.Path):
    """A path as `pathlib.Path`, which is imported only when there is one, which makes `--help` faster."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Path":
        """The path of an argument."""
        from pathlib import Path

        return Path(os.fsdecode(super().convert(value, param, ctx)))


PATH = PathType()

scenario_argument = click.argument("scenario", type=PATH)
each_option = click.option("--each", is_flag=True, help="Keep the sessions of one scenario apart.")
run_argument = click.argument("run", default="latest")
results_option = click.option(
    "--results", type=PATH, default="results", show_default=True, help="Where runs are kept, and baselines/."
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override a field, such as workloads.lstm.seq_len=128.",
)
only_option = click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Take only the cells whose id matches, such as 'lstm/ddp/*'; of several globs, any.",
)
breakdown_option = click.option(
    "--breakdown", is_flag=True, help="Where the time of each cell's step goes, instead of its figures."
)
waterfall_option = click.option(
    "--waterfall", is_flag=True, help="What each cell loses on the way from ideal speedup to its own, instead."
)
memory_option = click.option(
    "--memory", is_flag=True, help="What the memory of each cell's ranks holds, instead of its figures."
)
communication_option = click.option(
    "--communication", is_flag=True, help="What each cell's ranks exchange, and how fast, instead of its figures."
)
machine_option = click.option(
    "--machine",
    "machine_file",
    type=PATH,
    metavar="FILE",
    help="With --communication: this machine's own bandwidths, as parbench doctor --save writes them.",
)
wide_option = click.option("--wide", is_flag=True, help="Every column of the table, however wide that makes it.")
rounds_option = click.option("--rounds", type=click.IntRange(1), help="Rounds, instead of the scenario's.")


class FormatChoice(Choice):
    """`text`, or an export format that writes one of these parts. Formats are imported when their names are needed."""

    def __init__(self, *parts: "Part") -> None:
        self.parts = parts
        self.case_sensitive = True

    @cached_property
    def choices(self) -> Sequence[str]:  # type: ignore[override]
        """All names, `text` first."""
        from parbench.export.base import formats_of

        return ["text", *formats_of(self.parts)]


def format_option(*parts: "Part") -> Callable[[C], C]:
    """`--format`: text for people by default, or an export format that writes one of these parts of a document."""
    return click.option("--format", "output_format", type=FormatChoice(*parts), default="text", show_default=True)


def site_options(command: C) -> C:
    """The options that say where to launch; they arrive in the command under the names of `Site` and as `launcher`."""
    options = (
        click.option("--launcher", metavar="NAME", help="local, torchrun or slurm; by default what is detected."),
        click.option("--nodes", type=click.IntRange(1), help="How many nodes run this same command."),
        click.option("--node-rank", type=click.IntRange(0), help="Which of them this is; 0 keeps the results."),
        click.option("--rendezvous", metavar="HOST:PORT", help="Where node 0 waits for the others."),
        click.option(
            "--rendezvous-timeout", type=click.IntRange(1, 604_800), metavar="SECONDS", help="How long it waits."
        ),
        click.option(
            "--secret-file",
            type=PATH,
            metavar="PATH",
            help="A file with a secret that all nodes share; or set PARBENCH_SECRET.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


class BatchCommand(click.Command):
    """A command with `--submit`, which receives the batch system's options, those after `--`, as `batch_options`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Sets the batch system's options aside before parbench's own are parsed."""
        own, batch_options = args, list[str]()
        if "--" in args and "--submit" in args[: args.index("--")]:
            own, batch_options = args[: args.index("--")], args[args.index("--") + 1 :]
        ctx.params["batch_options"] = tuple(batch_options)
        return super().parse_args(ctx, own)
