"""Kills what ranks leave behind after parbench has gone, even after `kill -9`.

It runs as a program of its own that only waits, so no deadlock or held lock in a rank can block it. Its argument is a
mark; on standard input it reads lines: `+PID` for a process group to guard, `-PID` for one that has ended, `=` when all
is over. If the input ends without `=`, it kills the groups and every process that carries the mark.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

KILLING_S = 2.0
PAUSE_S = 0.01


def guard(mark: str) -> None:
    """Reads lines until the input ends, then kills what is left."""
    groups: set[int] = set()
    for line in sys.stdin:
        if line[0] == "=":
            return
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    kill_marked({mark})


def kill_marked(marks: Collection[str], exempt: Collection[int] = ()) -> None:
    """Kills all processes that carry the marks, except the process ids in `exempt`.

    Repeats until none is left, because they may start others, and gives up after `KILLING_S` seconds.
    """
    until = time.monotonic() + KILLING_S
    while (pids := set(find_marked(marks)).difference(exempt)) and time.monotonic() < until:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)


def find_marked(marks: Collection[str]) -> list[int]:
    """The ids of processes that started with all `marks`, such as `NAME=value`, in their environment.

    Children inherit the environment, also those that move to another session or lose their parent.
    """
    entries = {os.fsencode(mark) for mark in marks}
    pids = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            # An ended process has no environment any more, and that of other users is not readable.
            with contextlib.suppress(OSError):
                if entries.issubset((process / "environ").read_bytes().split(b"\0")):
                    pids.append(int(process.name))
    return pids


if __name__ == "__main__":
    guard(sys.argv[1])
