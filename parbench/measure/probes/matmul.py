"""What a device reaches in matrix products: no model can compute faster, so no strategy can claim it."""

import time

import torch

from parbench.base_types import Precision
from parbench.training.workload import AUTOCAST

SIZES = {"cpu": 768, "cuda": 4096}
"""Of the square matrices: large enough for full speed, small enough for milliseconds."""


REPEATS = 6


def matmul_flops(device: torch.device, precision: Precision) -> float:
    """Floating-point operations a second in products of square matrices, the fastest of a few.

    2 n³ operations a product; matrices are of the type in which a model of this precision multiplies.
    """
    size, dtype = SIZES[device.type], AUTOCAST.get(precision, torch.float32)
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    seconds = min(_timed(left, right) for _ in range(REPEATS))
    del left, right
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return 2 * size**3 / seconds


def _timed(left: torch.Tensor, right: torch.Tensor) -> float:
    _wait(left.device)
    started = time.perf_counter()
    torch.mm(left, right)
    _wait(left.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
