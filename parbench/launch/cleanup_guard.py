"""Ends what ranks leave behind when parbench is gone, however it went.

A program of its own that only waits: no deadlock and no held lock in a rank keeps it from acting. Its argument is a
mark; it reads lines from its input: `+PID` for a process group to guard, `-PID` for one that has ended, `=` where all
is over. When the input ends without that, it ends the groups, and all that carries the mark.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

ENDING_S = 2.0


PAUSE_S = 0.01


def guard(mark: str) -> None:
    """Reads until the end, then kills."""
    groups: set[int] = set()
    for line in sys.stdin:
        if line[0] == "=":
            return
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    end_marked({mark})


def end_marked(marks: Collection[str], spared: Collection[int] = ()) -> None:
    """Kills all that carries the marks, until none is left, or those that are left cannot be killed."""
    until = time.monotonic() + ENDING_S
    while (left := set(marked(marks)).difference(spared)) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)


def marked(marks: Collection[str]) -> list[int]:
    """The processes that began with all `marks`, such as `NAME=value`, in their environment.

    A process passes them on to whatever it starts, and what that starts, into whichever session or family it goes.
    """
    wanted, found = {os.fsencode(mark) for mark in marks}, []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            # One that has ended has none any more, and that of other users' is not to be seen.
            with contextlib.suppress(OSError):
                if wanted.issubset((process / "environ").read_bytes().split(b"\0")):
                    found.append(int(process.name))
    return found


if __name__ == "__main__":
    guard(sys.argv[1])
