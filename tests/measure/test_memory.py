"""Which part of a rank's memory is its own, and what becomes of memory that it frees."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parbench.figures.memory import own_growth
from parbench.measure.probes.memory import MemoryProbe

MIB = 2**20
CLEAR_REFS = Path("/proc/self/clear_refs")


@pytest.mark.skipif(not os.access(CLEAR_REFS, os.W_OK), reason="this kernel keeps no peak that can be reset")
def test_pages_of_files_are_recorded_apart_and_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "library"
    file.write_bytes(os.urandom(64 * MIB))
    probe = MemoryProbe((torch.device("cpu"),))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[page] for page in range(0, len(mapped), mmap.PAGESIZE)) > 0
        own = torch.ones(32 * MIB // 4)
        record = probe.read()
    assert own.sum() > 0
    assert record.resident_growth is not None
    assert record.file_growth is not None
    assert record.resident_growth >= 90 * MIB
    assert 60 * MIB <= record.file_growth <= 80 * MIB
    assert 28 * MIB <= (own_growth(record) or 0) <= 48 * MIB


BLOCKS = """
import ctypes, sys
from parbench.system.malloc import set_malloc_policy

class Info(ctypes.Structure):  # mallinfo(3)
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.mallinfo2.restype = [ctypes.c_void_p], Info
set_malloc_policy(sys.argv[1])
libc.free(libc.malloc(8 * 2**20))
before = libc.mallinfo2().hblks
libc.malloc(8 * 2**20)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(os.confstr("CS_GNU_LIBC_VERSION") is None, reason="mallopt and mallinfo2 are glibc's")
@pytest.mark.parametrize(("policy", "mapped_alone"), [("default", 0), ("trim", 1)])
def test_under_trim_a_large_block_is_mapped_on_its_own_however_often_one_was_freed(policy, mapped_alone) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKS, policy], env=variables, capture_output=True, text=True, check=False
    )
    assert (ended.stdout.strip(), ended.stderr) == (str(mapped_alone), "")
