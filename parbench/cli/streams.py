"""Output that nobody can take any more: a campaign of hours does not end for that, a command that only prints does."""

import errno
import io
import os
from pathlib import Path
from typing import Any, TextIO

from parbench.errors import OutputError


class _Forgiving(io.FileIO):
    """Drops what cannot be written: the terminal is gone, who read the pipe has ended, the log's disk is full."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


class _Demanding(io.FileIO):
    """Raises an `OutputError` at the first data that cannot be written, and drops the rest."""

    _ended = False

    def write(self, data: Any, /) -> int:
        if self._ended:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._ended = True  # what is left in a buffer comes once more when Python ends
            # Who reads no further, as `head` does, has what it wanted: that is no error, and changes no verdict.
            if error.errno == errno.EPIPE:
                return memoryview(data).nbytes
            raise OutputError(
                f"the output cannot be written: {error.strerror}; is stdout closed, or the disk full that it goes to?"
            ) from None


def forgiving(stream: TextIO | None) -> TextIO:
    """The same output, in which nothing that fails to be written is an error; None is one that was closed."""
    if stream is None:
        # Opened even so, for ranks as well: a file of results must not get the number that messages are written to.
        nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as this process lives
        os.set_inheritable(nowhere.fileno(), True)
        return nowhere
    return _text(_Forgiving(stream.fileno(), "w", closefd=False), stream.encoding, line_buffering=True)


def demanding(stream: TextIO | None) -> TextIO:
    """The same output, in which data that cannot be written is an `OutputError`, unless its reader has left."""
    if stream is None:
        # Where nothing can be written, on a number that no file of results then gets.
        closed = os.open(os.devnull, os.O_RDONLY)
        return _text(_Demanding(closed, "w", closefd=False), "utf-8")
    return _text(_Demanding(stream.fileno(), "w", closefd=False), stream.encoding, bool(stream.line_buffering))


def _text(raw: io.FileIO, encoding: str, line_buffering: bool = False) -> TextIO:
    """A character that the encoding does not have is no error either."""
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="replace", line_buffering=line_buffering)
