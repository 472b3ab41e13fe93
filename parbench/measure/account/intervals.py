"""Sets of moments: disjoint intervals in rising order, from and to a time in whole nanoseconds."""

from collections.abc import Iterable, Sequence

Interval = tuple[int, int]
Intervals = Sequence[Interval]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The moments of any of the intervals, which may overlap and come in any order; empty ones vanish."""
    merged: list[Interval] = []
    for start, end in sorted(each for each in intervals if each[0] < each[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def difference(one: Intervals, other: Intervals) -> list[Interval]:
    """The moments of `one` that `other` lacks."""
    rest: list[Interval] = []
    index = 0
    for start, end in one:
        while index < len(other) and other[index][1] <= start:
            index += 1
        left, place = start, index
        while place < len(other) and other[place][0] < end:
            if other[place][0] > left:
                rest.append((left, other[place][0]))
            left = max(left, other[place][1])
            place += 1
        if left < end:
            rest.append((left, end))
    return rest


def intersection(one: Intervals, other: Intervals) -> list[Interval]:
    """The moments of `one` that `other` has, too."""
    return difference(one, difference(one, other))


def length(intervals: Iterable[Interval]) -> int:
    """How long they are together, in nanoseconds."""
    return sum(end - start for start, end in intervals)
