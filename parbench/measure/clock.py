"""Clocks for steps. Nothing is read back from the device between the first step and the last."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch


class Timing(NamedTuple):
    """Seconds from before the first step to after the last, and of each step."""

    total_s: float
    steps_s: tuple[float, ...]


def time_steps(step: Callable[[int], None], steps: range, device: torch.device) -> Timing:
    """Runs `step(i)` for every i of `steps`, and synchronises the device once before and once after.

    The time of a step runs, on CUDA, between two events on the device's current stream; on CPU it is read from the
    monotonic clock.
    """
    return _time_on_cuda(step, steps, device) if device.type == "cuda" else _time_on_cpu(step, steps)


def _time_on_cpu(step: Callable[[int], None], steps: range) -> Timing:
    marks = [time.perf_counter_ns()]
    for index in steps:
        step(index)
        marks.append(time.perf_counter_ns())
    durations = tuple((end - start) / 1e9 for start, end in pairwise(marks))
    return Timing((marks[-1] - marks[0]) / 1e9, durations)


def _time_on_cuda(step: Callable[[int], None], steps: range, device: torch.device) -> Timing:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(steps) + 1)]
    torch.cuda.synchronize(device)
    start = time.perf_counter_ns()
    events[0].record()
    for index, event in zip(steps, events[1:], strict=True):
        step(index)
        event.record()
    torch.cuda.synchronize(device)
    total = (time.perf_counter_ns() - start) / 1e9
    return Timing(total, tuple(a.elapsed_time(b) / 1e3 for a, b in pairwise(events)))


class Marks:
    """Moments within one step. The seconds between them can be read once the device has reached them."""

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._marks: list[Any] = []
        self.mark()

    def mark(self) -> None:
        """Adds a moment: on CPU it is now, on CUDA it is when the stream reaches this point."""
        if self._on_cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def read_intervals(self) -> tuple[float, ...]:
        """Seconds from each mark to the next. On CUDA the device must be synchronised first."""
        if self._on_cuda:
            return tuple(a.elapsed_time(b) / 1e3 for a, b in pairwise(self._marks))
        return tuple(b - a for a, b in pairwise(self._marks))
