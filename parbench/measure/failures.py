"""What counts as a failure in a rank, and how it is told."""

import math
import time
import traceback

import torch

from parbench.records.trial import Failure

OUT_OF_MEMORY_SIGNS = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")


def finite(losses: torch.Tensor, what: str) -> list[float]:
    """The value of a loss, or of each model's; raises `FloatingPointError` where one is NaN or infinite."""
    values = [float(value) for value in losses.reshape(-1).tolist()]
    for value in values:
        if not math.isfinite(value):
            raise FloatingPointError(f"{what} is {value}: training diverged; a lower learning rate may help")
    return values


def finite_time(seconds: float, what: str) -> float:
    """`seconds`; raises `FloatingPointError` for what no clock shows."""
    if not math.isfinite(seconds):
        raise FloatingPointError(f"{what} is {seconds}, which is no time")
    return seconds


def failure_of(error: BaseException) -> Failure:
    """The record of an error; outside its CUDA allocator, torch reports lack of memory as a plain RuntimeError."""
    lacks_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS)
    )
    return Failure(
        error=f"{type(error).__name__}: {told(error)}",
        traceback="".join(traceback.format_exception(error)),
        out_of_memory=lacks_memory,
        at=time.monotonic(),
    )


def told(error: BaseException) -> str:
    """The message; of a compiler's pages, the last line, which says what is wrong."""
    message = str(error)
    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return message
    lines = [line.strip() for line in message.splitlines()]
    spoken = [line for line in lines if line and not line.startswith(("Set TORCH", "You can suppress", "import torch"))]
    return f"torch.compile failed: {spoken[-1] if spoken else message}"
