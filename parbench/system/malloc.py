"""The C library's policy on freed memory, which is the same in all ranks of a campaign."""

import ctypes

from parbench.base_types import MallocPolicy

MMAP_THRESHOLD_BYTES = 4 * 2**20
M_MMAP_THRESHOLD = -3
"""The parameter's number in malloc.h."""


def set_malloc_policy(policy: MallocPolicy) -> None:
    """Makes freed blocks of 4 MiB and more return to the system at once, where the policy is `trim`.

    By default glibc raises its limit for such blocks up to 32 MiB as they are freed (mallopt(3), M_MMAP_THRESHOLD) and
    takes later ones from its heap, where others come to lie between them: the holes stay with the process. Blocks that
    are mapped on their own leave no holes, but their pages are new, and zeroed, each time. Raises `OSError` where the C
    library has no such parameter.
    """
    if policy == "default":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES):
        raise OSError("measure.malloc: trim needs glibc, whose mallopt this C library lacks; leave it at default")
