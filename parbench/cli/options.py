"""Options of a batch system on the command line."""

import click


class BatchCommand(click.Command):
    """A command with `--submit`: what follows `--` is then for the batch system (`batch_options`)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the batch system's options aside; they mean nothing here."""
        own, others = args, []
        if "--" in args and "--submit" in args[: args.index("--")]:
            own, others = args[: args.index("--")], args[args.index("--") + 1 :]
        ctx.params["batch_options"] = tuple(others)
        return super().parse_args(ctx, own)
