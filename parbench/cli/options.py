"""Arguments and options that several commands share."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

C = TypeVar("C", bound=Callable[..., Any])


class PathType(click.Path):
    """A path as `pathlib.Path`, which is imported only when there is one, which makes `--help` faster."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Path":
        """The path of an argument."""
        from pathlib import Path

        return Path(os.fsdecode(super().convert(value, param, ctx)))


PATH = PathType()

scenario_argument = click.argument("scenario", type=PATH)
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
rounds_option = click.option("--rounds", type=click.IntRange(1), help="Rounds, instead of the scenario's.")


def format_option(*formats: str) -> Callable[[C], C]:
    """`--format`, one of these; the first is the default."""
    return click.option("--format", "output_format", type=click.Choice(formats), default=formats[0], show_default=True)


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
