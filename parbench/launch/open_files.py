"""Whether this process, and those that it starts, may open as many files as a trial needs."""

import resource

from parbench.errors import UsageError

FOR_A_PROCESS = 96
"""A rank alone has 24 open, 33 under torch's agent, and 10 more in a mesh of four process groups. CUDA and a model's
libraries take a few dozen, and so do the strangers at a rendezvous (`MAX_STRANGERS`)."""
FOR_A_RANK = 8
"""What a process has open for each further rank: two to four, under torch's agent, whose pipes ranks inherit, six."""


def require_open_files(ranks: int) -> None:
    """Raises `UsageError` where a trial of so many ranks would run out of file descriptors, in whichever process."""
    needed = FOR_A_PROCESS + FOR_A_RANK * ranks
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise UsageError(
            f"this shell allows {allowed} open files, and {needed} are needed for trials of {ranks} "
            f"{'rank' if ranks == 1 else 'ranks'}; raise it with: ulimit -n {needed}"
        )
