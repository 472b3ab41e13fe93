"""The `parbench` command: finds the command's file, calls it, and turns errors into sentences and exit codes."""

import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from parbench import __version__
from parbench.cli import commands
from parbench.cli.console import help_width, protect_output, say
from parbench.system import exit_codes
from parbench.system.signals import Interrupted, interruptible


class Commands(click.Group):
    """The commands in `parbench/cli/commands`: one file each, named after the command, which holds it as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - overrides
        """The names of the files, sorted, and those of commands that were added at run time."""
        files = (name for folder in commands.__path__ for name in os.listdir(folder))  # noqa: PTH208 - pathlib is slow
        names = {name.removesuffix(".py") for name in files if name.endswith(".py") and not name.startswith("_")}
        return sorted(names | self.commands.keys())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command's file; None where there is no such file."""
        if cmd_name not in self.commands and cmd_name in self.list_commands(ctx):
            self.add_command(import_module(f"{commands.__name__}.{cmd_name}").command, cmd_name)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Calls a command, which returns its exit code.

        Of these errors, click or Python would make exit code 1, which is for regressions: here each is a defect.
        """
        try:
            return super().invoke(ctx)
        except (EOFError, KeyboardInterrupt, OSError, SystemExit) as error:
            raise RuntimeError(f"a command ended by {type(error).__name__}") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="parbench")
def cli() -> None:
    """Measure which way of spreading a language model over your devices is fastest, and what it costs.

    \b
    parbench run scenarios/lstm_scaling.yaml    measure
    parbench table                              the latest run's table again
    parbench report                             a page with its verdict, table and charts
    parbench doctor                             what would disturb a measurement on this machine
    """


def main() -> NoReturn:
    """Runs the command line and exits. Only a regression has exit code 1, whatever else happens."""
    protect_output()
    code = exit_codes.DEFECT
    try:
        code = run_command()
    finally:
        sys.exit(code)


def run_command() -> int:
    """Calls the command on the command line; prints what went wrong, if anything did. Returns the exit code."""
    try:
        with interruptible():
            code = cli.main(prog_name="parbench", standalone_mode=False, terminal_width=help_width())
            sys.stdout.flush()
            return code or exit_codes.OK
    except Interrupted as interruption:
        click.echo(f"\n{interruption}", err=True)
        return interruption.exit_code
    except click.ClickException as error:
        error.show()
        return exit_codes.BAD_USAGE
    except Exception as error:  # noqa: BLE001 - the last handler; a defect keeps its traceback
        return explain(error)


def explain(error: Exception) -> int:
    """Prints a sentence about an error that the user can fix, a traceback of a defect. Returns the exit code."""
    from parbench.errors import BaselineError, LostNodeError, NothingMeasuredError, ParbenchError

    if not isinstance(error, ParbenchError):
        import traceback

        traceback.print_exc()
        return exit_codes.DEFECT
    for line in str(error).splitlines():
        say(line)
    codes = {
        BaselineError: exit_codes.NO_BASELINE,
        NothingMeasuredError: exit_codes.CELL_FAILED,
        LostNodeError: exit_codes.CELL_FAILED,
    }
    return codes.get(type(error), exit_codes.BAD_USAGE)
