"""NVIDIA's Multi-Process Service (MPS): whether it can be started here, and whether this process goes through it.

Processes that share a GPU take turns, unless they are clients of an MPS server: then their kernels run side by side
(NVIDIA, "Multi-Process Service", https://docs.nvidia.com/deploy/mps/).
"""

import ctypes
import shutil
import subprocess
from collections.abc import Mapping

CONTROL = "nvidia-cuda-mps-control"
"""The program that is the daemon, and that speaks to it."""
SERVER = "nvidia-cuda-mps-server"
"""The process that a daemon starts for its clients."""
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"

_MPS_ENABLED = 133  # CU_DEVICE_ATTRIBUTE_MPS_ENABLED of cuda.h
_ANSWER_S = 10.0


def why_no_mps() -> str | None:
    """Why MPS cannot be started on this machine; None where it can."""
    return None if shutil.which(CONTROL) else f"{CONTROL}, which starts MPS, is not on the PATH"


def command_daemon(command: str, variables: Mapping[str, str], patience_s: float = _ANSWER_S) -> bool:
    """Whether the daemon that these environment variables lead to has taken a command; waits `patience_s` at most."""
    try:
        ended = subprocess.run(  # noqa: S603 - a program of the driver, and words of our own
            [CONTROL],
            input=f"{command}\n",
            env=dict(variables),
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def is_client(device: int) -> bool | None:
    """Whether this process computes on CUDA device number `device` through MPS; None where the driver does not tell.

    CUDA must have been initialised. It says nothing itself: where no daemon answers, a process goes on without MPS.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    handle, value = ctypes.c_int(), ctypes.c_int()
    failed = cuda.cuDeviceGet(ctypes.byref(handle), device) or cuda.cuDeviceGetAttribute(
        ctypes.byref(value), _MPS_ENABLED, handle
    )
    return None if failed else bool(value.value)
