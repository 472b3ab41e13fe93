"""CUDA graphs: a function whose kernels are launched one by one at first, and then all at once."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")

EAGER_CALLS = 3
"""How often a function is called as it is, before it is captured: libraries set themselves up in its first calls."""


class Replayed(Generic[T]):
    """A function that reads and writes tensors in fixed places: captured once, its graph is replayed from then on.

    What it returns is overwritten by the next replay.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._calls = 0
        self._side_stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> T:
        """Calls the function, or replays it; what it returned."""
        self._calls += 1
        if self._calls <= EAGER_CALLS:
            return self._call_on_side_stream()
        if self._graph is None:
            # A capture computes nothing.
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._result = self._function()
        self._graph.replay()
        return self._result

    def _call_on_side_stream(self) -> T:
        """A call on a stream of its own, as torch requires before a capture."""
        self._side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side_stream):
            result = self._function()
        torch.cuda.current_stream().wait_stream(self._side_stream)
        return result
