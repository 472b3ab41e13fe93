"""Large matrices of real launches, thinned: what goes wrong mostly takes one value, or two of them together."""

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import TypeVar

T = TypeVar("T")


def pairwise(cases: Sequence[T], axes: Callable[[T], Sequence[Hashable]]) -> list[T]:
    """Few of `cases`, in their order, in which any two values of two axes that occur together in some case still do.

    `axes` gives a case's value on each axis. Greedy: always the case that has the most pairs which none has had.
    """
    pairs = [set(combinations(enumerate(axes(case)), 2)) for case in cases]
    left = set().union(*pairs)
    chosen = set()
    while left:
        best = max(range(len(cases)), key=lambda number: len(pairs[number] & left))
        chosen.add(best)
        left -= pairs[best]
    return [cases[number] for number in sorted(chosen)]
