"""Which models a lane trains, one after another, and for how many steps each."""

import math
from collections.abc import Iterator

from torch.distributed.distributed_c10d import Store

from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import Layout

MIN_WINDOW_STEPS = 3
NEXT = "parbench/next"


class Queue:
    """The models of a lane by number: every so many of all, or those that are left when the lane is free.

    A shared queue goes from the longest model to the shortest. Where models are stacked, numbers are those of the
    first of each stack.
    """

    def __init__(self, spec: WorkloadSpec, layout: Layout, lane: int, store: Store) -> None:
        self._layout = layout
        self._lane = lane
        self._store = store
        models = layout.lanes * layout.stacked if spec.models == "auto" else spec.models
        self._lengths = spec.length_per_model or (1.0,) * models
        self._jobs = list(range(0, models, layout.stacked))
        self._taken = 0
        self._full_length_steps: int | None = None

    @property
    def taken_before(self) -> bool:
        """Whether the lane has had a model before the one that it has now."""
        return self._taken > 1

    def __iter__(self) -> Iterator[int]:
        for job in self._shared() if self._layout.queued else self._jobs[self._lane :: self._layout.lanes]:
            self._taken += 1
            yield job

    def _shared(self) -> Iterator[int]:
        longest_first = sorted(self._jobs, key=lambda job: -self._lengths[job])
        while (place := self._store.add(NEXT, 1) - 1) < len(longest_first):
            yield longest_first[place]

    def steps_of(self, job: int, window_s: float, step_s: float, cycle: int = 1) -> int:
        """Enough steps to fill the window with all the models of a lane; shorter models take their share of them.

        What the first model's step took decides for all: tokens per second are formed of all of them. Steps of which
        only one in a `cycle` does some of the work come in whole cycles, wherever the first of them begins.
        """
        if self._full_length_steps is None:
            self._full_length_steps = math.ceil(window_s / math.ceil(len(self._jobs) / self._layout.lanes) / step_s)
        share = self._lengths[job] / max(self._lengths)
        steps = max(MIN_WINDOW_STEPS, round(self._full_length_steps * share))
        return math.ceil(steps / cycle) * cycle
