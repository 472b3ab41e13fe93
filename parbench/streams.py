"""Output that nobody can take any more: a campaign of hours does not end for that."""

import io
import os
from pathlib import Path
from typing import Any, TextIO


class _Forgiving(io.FileIO):
    """Drops what cannot be written: the terminal is gone, who read the pipe has ended, the log's disk is full."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def forgiving(stream: TextIO | None) -> TextIO:
    """The same output, in which nothing that fails to be written is an error; None is one that was closed."""
    if stream is None:
        # Opened even so, for ranks as well: a file of results must not get the number that messages are written to.
        nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as this process lives
        os.set_inheritable(nowhere.fileno(), True)
        return nowhere
    raw = _Forgiving(stream.fileno(), "w", closefd=False)
    # Nor is a character an error that the terminal's encoding does not have.
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=stream.encoding, errors="replace", line_buffering=True)
