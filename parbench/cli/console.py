"""What commands say, and where: data on stdout, all else on stderr, and text that anybody may have made up plainly."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> "Console":
    """A console as wide as what is printed where there is no terminal: a piped table is not to be cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 300, highlight=False, emoji=False)


def write_out(content: str | bytes) -> None:
    """What a command exports, on stdout as it is."""
    if isinstance(content, bytes):
        sys.stdout.buffer.write(content)
    else:
        click.echo(content, nl=False)


def say(sentence: str) -> None:
    """A sentence on stderr."""
    click.echo(plain(sentence), err=True)


def plain(text: str) -> str:
    """The text without control characters."""
    from parbench.text import plain

    return plain(text)
