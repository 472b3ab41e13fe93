"""The rate at which a device reads and writes its memory, which bounds elementwise operators and optimizers."""

import torch

from parbench.measure.clock import time_steps

BLOCK_BYTES = 2**28
"""More than caches hold."""

REPEATS = 6

COPIES = {"cpu": 1, "cuda": 10}
"""Copies that are timed together: on a GPU, calling the clock and waiting for the end costs a tenth of one."""


def measure_copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written together, in the fastest of a few copies of a block of memory."""
    source, target = (torch.empty(BLOCK_BYTES // 4, device=device).zero_() for _ in range(2))

    def copy(_: int) -> None:
        target.copy_(source)

    copies = range(COPIES[device.type])
    fastest = min(time_steps(copy, copies, device).total_s for _ in range(REPEATS))
    return 2 * BLOCK_BYTES * len(copies) / fastest
