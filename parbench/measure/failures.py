"""What counts as a failure in a rank, and how it is recorded."""

import math
import time
import traceback

import torch

from parbench.records.trial import Failure

OUT_OF_MEMORY_SIGNS = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""The last is what cuBLAS says where no memory is left for its handle."""


def require_finite(losses: torch.Tensor, what: str) -> list[float]:
    """The loss of each model in `losses`; raises `FloatingPointError` where one is NaN or infinite."""
    values = [float(value) for value in losses.reshape(-1).tolist()]
    for value in values:
        if not math.isfinite(value):
            raise FloatingPointError(f"{what} is {value}: training diverged; a lower learning rate may help")
    return values


def require_finite_time(seconds: float, what: str) -> float:
    """`seconds`; raises `FloatingPointError` where it is NaN or infinite."""
    if not math.isfinite(seconds):
        raise FloatingPointError(f"{what} is {seconds}, which is not a time in seconds")
    return seconds


def make_failure(error: BaseException) -> Failure:
    """The record of an error. torch has an error of its own for lack of CUDA memory; elsewhere it is a RuntimeError."""
    is_out_of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS)
    )
    return Failure(
        error=f"{type(error).__name__}: {_shorten_message(error)}",
        traceback="".join(traceback.format_exception(error)),
        out_of_memory=is_out_of_memory,
        at=time.monotonic(),
    )


def _shorten_message(error: BaseException) -> str:
    """The error's message. torch.compile writes pages, of which the last line says what is wrong."""
    message = str(error)
    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return message
    lines = [line.strip() for line in message.splitlines()]
    reasons = [
        line for line in lines if line and not line.startswith(("Set TORCH", "You can suppress", "import torch"))
    ]
    return f"torch.compile failed: {reasons[-1] if reasons else message}"
