"""The GPUs that CUDA shows, asked in a process of its own, for machines on which NVML does not answer.

Some containers have CUDA's library and not NVML's. The process keeps this one free of torch and of a CUDA context.
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from parbench.system.software import installed_torch

DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""What a machine with an NVIDIA GPU has: on Linux, and on Windows' Linux."""

DEADLINE_S = 120

_QUERY = """
import json, torch
devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
print(json.dumps([[device.name, device.total_memory, device.major, device.minor] for device in devices]))
"""


class CudaDevice(NamedTuple):
    """A GPU as CUDA shows it: its name, its memory in bytes and its compute capability."""

    name: str
    memory: int
    compute_capability: tuple[int, int]


@cache
def ask_cuda() -> tuple[CudaDevice, ...]:
    """The GPUs that torch can use; empty where there is no driver, or torch is not built for CUDA, or CUDA fails."""
    if installed_torch()[1] is None or not any(file.exists() for file in DEVICE_FILES):
        return ()
    try:
        # Nothing of a user's goes into this command.
        process = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _QUERY], capture_output=True, text=True, timeout=DEADLINE_S, check=True
        )
        rows = json.loads(process.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return ()
    return tuple(CudaDevice(name, memory, (major, minor)) for name, memory, major, minor in rows)
