"""The frontier of speed against memory: what each saving of memory costs in speed."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def frontier(cells: Sequence[T], saves: Callable[[T, T], bool]) -> list[T]:
    """From the fastest cell to the one that needs least memory: each is the fastest that saves memory beside the last.

    `cells` are sorted by speed, the fastest first; `saves(a, b)` says whether `a` surely needs less memory than `b`, so
    that no difference of memory within the frontier is luck.
    """
    front = list(cells[:1])
    for cell in cells[1:]:
        if saves(cell, front[-1]):
            front.append(cell)
    return front
