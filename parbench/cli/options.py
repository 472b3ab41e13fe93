"""Options whose values are only known when a command is called: export formats, and those of a batch system."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from parbench.export.base import Part

    Choice = click.Choice[str]
else:
    Choice = click.Choice  # not generic before click 8.2


class FormatChoice(Choice):
    """`text`, or an export format for what has these parts. Formats are imported when somebody asks for one."""

    def __init__(self, *parts: "Part") -> None:
        self.parts = parts
        self.case_sensitive = True

    @cached_property
    def choices(self) -> Sequence[str]:  # type: ignore[override]
        """All names, `text` first."""
        from parbench.export.base import formats_of

        return ["text", *formats_of(self.parts)]


class BatchCommand(click.Command):
    """A command with `--submit`: what follows `--` is then for the batch system (`batch_options`)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the batch system's options aside; they mean nothing here."""
        own, others = args, []
        if "--" in args and "--submit" in args[: args.index("--")]:
            own, others = args[: args.index("--")], args[args.index("--") + 1 :]
        ctx.params["batch_options"] = tuple(others)
        return super().parse_args(ctx, own)
