"""Cuts a model into stages of equal work. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive blocks of a model, with `embed` at the start and `head` at the end; `share` of the work, 0 to 1."""

    blocks: range
    embed: bool
    head: bool
    share: float

    def __str__(self) -> str:
        numbers = f"{self.blocks.start}–{self.blocks.stop - 1}" if len(self.blocks) > 1 else f"{self.blocks.start}"
        parts = ["embed"] * self.embed + [f"block {numbers}"] * bool(self.blocks) + ["head"] * self.head
        return f"{'+'.join(parts)} {self.share:.0%}"


def cut_into_stages(parts: Sequence[float], stages: int) -> list[Stage]:
    """The stages in order, cut so that the costliest one is as cheap as possible. The head may be a stage of its own.

    `parts` are the costs of embedding, blocks and head, in any unit. The embedding stays with the first block. Raises
    `ValueError` where blocks and head together are fewer than `stages`.
    """
    embed, first, *others = parts
    n_blocks = len(parts) - 2
    costs = [cost / sum(parts) for cost in (embed + first, *others)]
    cuts = _balanced_cuts(costs, stages)
    return [
        Stage(
            blocks=range(start, min(stop, n_blocks)),
            embed=start == 0,
            head=stop == len(costs),
            share=sum(costs[start:stop]),
        )
        for start, stop in pairwise(cuts)
    ]


def _balanced_cuts(costs: Sequence[float], stages: int) -> list[int]:
    """Where to cut `costs`: the largest sum is as small as possible and, among such cuts, so is the sum of squares."""
    count = len(costs)
    if stages > count:
        raise ValueError(f"{count} parts are too few for {stages} stages")
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    # largest[i], squares[i]: of the best cut of the first i parts into the stages so far.
    largest, squares = np.full(count + 1, np.inf), np.full(count + 1, np.inf)
    largest[0] = squares[0] = 0.0
    origins: list[np.ndarray] = []
    for _ in range(stages):
        new_largest, new_squares = np.full(count + 1, np.inf), np.full(count + 1, np.inf)
        origin = np.zeros(count + 1, dtype=int)
        for stop in range(1, count + 1):
            cost = sums[stop] - sums[:stop]
            candidates = np.maximum(largest[:stop], cost)
            ties = squares[:stop] + cost**2
            # Rounded, so that floating-point errors do not decide between cuts that are equally good.
            start = int(np.lexsort((np.round(ties, 6), np.round(candidates, 6)))[0])
            new_largest[stop], new_squares[stop], origin[stop] = candidates[start], ties[start], start
        largest, squares = new_largest, new_squares
        origins.append(origin)
    cuts = [count]
    for origin in reversed(origins):
        cuts.append(int(origin[cuts[-1]]))
    return cuts[::-1]
