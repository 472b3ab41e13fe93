"""Intervals against sets of whole numbers, each of which stands for a nanosecond."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from parbench.measure.account.intervals import difference, intersection, length, union

MOMENTS = st.integers(0, 40)
INTERVALS = st.lists(st.tuples(MOMENTS, MOMENTS), max_size=12)


def moments(intervals):
    return {moment for start, end in intervals for moment in range(start, end)}


def is_tidy(intervals):
    apart = all(one[1] < other[0] for one, other in pairwise(intervals))
    return apart and all(start < end for start, end in intervals)


@given(INTERVALS)
def test_a_union_has_the_moments_of_all(intervals) -> None:
    joined = union(intervals)
    assert moments(joined) == moments(intervals)
    assert is_tidy(joined)
    assert length(joined) == len(moments(intervals))


@given(INTERVALS, INTERVALS)
def test_differences_and_intersections_are_those_of_sets(one, other) -> None:
    left, right = union(one), union(other)
    assert moments(difference(left, right)) == moments(one) - moments(other)
    assert moments(intersection(left, right)) == moments(one) & moments(other)
    assert length(difference(left, right)) + length(intersection(left, right)) == length(left)
