"""The rate that a device reaches in matrix products. No model can compute faster, so no strategy can claim to."""

import time

import torch

from parbench.base_types import Precision
from parbench.training.workload import AUTOCAST

SIZES = {"cpu": 768, "cuda": 4096}
"""Rows and columns of the matrices: enough for full speed, few enough to take milliseconds."""


REPEATS = 6


def measure_matmul_flops(device: torch.device, precision: Precision) -> float:
    """Floating-point operations per second in the fastest of a few products of square matrices.

    A product of n × n matrices has 2 n³ operations. The matrices have the type in which a model of this precision
    multiplies.
    """
    size, dtype = SIZES[device.type], AUTOCAST.get(precision, torch.float32)
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    seconds = min(_time_product(left, right) for _ in range(REPEATS))
    del left, right
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return 2 * size**3 / seconds


def _time_product(left: torch.Tensor, right: torch.Tensor) -> float:
    _synchronize(left.device)
    started = time.perf_counter()
    torch.mm(left, right)
    _synchronize(left.device)
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
