"""Output of commands: data on stdout, all else on stderr, text that others wrote without control characters."""

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console


PLAIN_WIDTH, WIDE = 120, 1000
"""Columns of a table for people where there is no terminal, and where all of them are wanted."""


def console(*, stderr: bool = False, width: int = 300) -> "Console":
    """A rich console, `width` columns wide where there is no terminal, so that what is piped is not cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else width, highlight=False, emoji=False)


def table_console(*, wide: bool) -> "Console":
    """The console for a run's table: as wide as the terminal, or as `PLAIN_WIDTH`; or without a limit."""
    from rich.console import Console

    if wide:
        return Console(width=WIDE, highlight=False, emoji=False)
    return console(width=PLAIN_WIDTH)


def say(text: str) -> None:
    """Prints text to stderr in one line, without control characters."""
    click.echo(plain(text), err=True)


def write_out(content: str | bytes) -> None:
    """Writes exported data to stdout as it is."""
    if isinstance(content, bytes):
        sys.stdout.buffer.write(content)
    else:
        click.echo(content, nl=False)


def say_problems(problems: "Iterable[str]") -> None:
    """Prints to stderr which stored records are left out and why: they may hold any text."""
    for problem in problems:
        say(problem)


def plain(text: str) -> str:
    """The text in one line without control characters."""
    from parbench.text import plain

    return plain(text)


def help_width() -> int:
    """The width of help texts: that of the terminal, at most 110 columns.

    click would ask `shutil`, whose imports take as long as all of parbench's for `--help`.
    """
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        columns = 80
    return max(min(columns, 110) - 2, 50)


def protect_output() -> None:
    """Messages that cannot be written are dropped; data that cannot be written to stdout raises `OutputError`."""
    sys.stderr, sys.stdout = dropping_stream(sys.stderr), strict_stream(sys.stdout)


def drop_unwritable_output() -> None:
    """From now on data that cannot be written to stdout is dropped: a campaign does not end because of its table."""
    sys.stdout = dropping_stream(sys.stdout)


def dropping_stream(stream: TextIO | None) -> TextIO:
    """The same output, but data that cannot be written is dropped. None stands for a closed one."""
    if stream is None:
        # It takes the lowest free file descriptor, 1 or 2, also in ranks: otherwise a file of results would get that
        # number, and whatever is printed would be written into it.
        nowhere = open(os.devnull, "w")  # noqa: PTH123, SIM115 - stays open for as long as the process lives
        os.set_inheritable(nowhere.fileno(), True)
        return nowhere
    return _text_stream(_DroppingFile(stream.fileno(), "w", closefd=False), stream.encoding, line_buffering=True)


def strict_stream(stream: TextIO | None) -> TextIO:
    """The same output, but data that cannot be written raises `OutputError`, unless the reader has closed its pipe."""
    if stream is None:
        # Open for reading only, so that writing fails; it also keeps files of results off file descriptor 1.
        closed = os.open(os.devnull, os.O_RDONLY)
        return _text_stream(_StrictFile(closed, "w", closefd=False), "utf-8")
    return _text_stream(_StrictFile(stream.fileno(), "w", closefd=False), stream.encoding, bool(stream.line_buffering))


class _DroppingFile(io.FileIO):
    """Drops what cannot be written: the terminal or the pipe's reader is gone, or the log's disk is full."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


class _StrictFile(io.FileIO):
    """Raises an `OutputError` at the first data that cannot be written, and drops the rest."""

    _has_failed = False

    def write(self, data: Any, /) -> int:
        if self._has_failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._has_failed = True  # Python writes what is left in buffers once more when it exits
            # A reader that closes its pipe early, as `head` does, has what it wanted: no error, no other exit code.
            if error.errno == errno.EPIPE:
                return memoryview(data).nbytes
            from parbench.errors import OutputError

            raise OutputError(
                f"the output cannot be written: {error.strerror}; is stdout closed, or the disk full that it goes to?"
            ) from None


def _text_stream(raw: io.FileIO, encoding: str, line_buffering: bool = False) -> TextIO:
    """Text to `raw`; characters that the encoding lacks become question marks."""
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="replace", line_buffering=line_buffering)
