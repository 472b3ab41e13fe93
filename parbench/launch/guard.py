"""Ends what ranks leave behind when parbench is gone, however it went.

A program of its own that only waits: no deadlock and no held lock in a rank keeps it from acting. It reads lines from
its input: `+PID` for a process group to guard, `-PID` for one that has ended. When the input ends, so do the others.
"""

import contextlib
import os
import signal
import sys


def guard() -> None:
    """Reads until the end, then kills."""
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    guard()
