"""Checks the limit on open files: a trial of many ranks needs more than some shells allow."""

import resource

from parbench.errors import UsageError

FOR_A_PROCESS = 96
"""File descriptors of one process. A rank has 24, 33 under torch's agent, and 10 more in a mesh of four process groups.
CUDA and a model's libraries need a few dozen, and so do unknown callers at a rendezvous (`MAX_STRANGERS`)."""
FOR_A_RANK = 8
"""File descriptors of one process for each further rank: two to four, or six under torch's agent, whose pipes ranks
inherit."""


def require_open_files(ranks: int) -> None:
    """Raises `UsageError` if a trial of `ranks` ranks would run out of file descriptors in any of its processes."""
    needed = FOR_A_PROCESS + FOR_A_RANK * ranks
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise UsageError(
            f"this shell allows {allowed} open files, and {needed} are needed for trials of {ranks} "
            f"{'rank' if ranks == 1 else 'ranks'}; raise it with: ulimit -n {needed}"
        )
