"""The rate that a device reaches in matrix products. No model can compute faster, so no strategy can claim to."""

import time

import torch

from parbench.base_types import Precision
from parbench.training.workload import AUTOCAST

SIZES = {"cpu": (768,), "cuda": (4096, 8192)}
"""Rows and columns of the matrices: enough for full speed, few enough to take milliseconds."""

REPEATS, ENOUGH_S = 6, 3.0
"""How often a size is timed; after so many seconds twice is enough, since what takes long varies little."""

PRODUCTS = {"cpu": 1, "cuda": 10}
"""Products that are timed together: on a GPU, calling the clock and waiting for the end costs a tenth of one."""


def measure_matmul_flops(device: torch.device, precision: Precision) -> float:
    """Floating-point operations per second in the fastest of a few products of square matrices.

    A product of n × n matrices has 2 n³ operations. The matrices have the type in which a model of this precision
    multiplies.
    """
    dtype = AUTOCAST.get(precision, torch.float32)
    fastest = max(_measure_size(size, device, dtype) for size in SIZES[device.type])
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return fastest


def _measure_size(size: int, device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    products = PRODUCTS[device.type]
    times: list[float] = []
    while len(times) < REPEATS and (len(times) < 2 or sum(times) < ENOUGH_S):
        times.append(_time_products(left, right, products))
    return products * 2 * size**3 / min(times)


def _time_products(left: torch.Tensor, right: torch.Tensor, products: int) -> float:
    out = torch.empty_like(left)
    _synchronize(left.device)
    started = time.perf_counter()
    for _ in range(products):
        torch.mm(left, right, out=out)
    _synchronize(left.device)
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
