"""The thinning of matrices: what it must keep, and that it is worth it."""

from itertools import combinations, product

from tests.support.pairwise import pairwise

FULL = list(product("abcd", range(4), "xyz", (True, False)))


def pairs(cases):
    return {pair for case in cases for pair in combinations(enumerate(case), 2)}


def test_every_pair_that_there_is_stays_and_few_cases_do():
    thinned = pairwise(FULL, tuple)
    assert pairs(thinned) == pairs(FULL)
    assert 16 <= len(thinned) <= 20  # 4 × 4 pairs of the two longest axes are the least
    assert thinned == sorted(thinned, key=FULL.index)
    assert thinned == pairwise(FULL, tuple)


def test_what_is_left_out_of_a_matrix_stays_out():
    some = [case for case in FULL if case[:2] != ("a", 0)]
    thinned = pairwise(some, tuple)
    assert pairs(thinned) == pairs(some)
    assert set(thinned) <= set(some)


def test_two_axes_have_nothing_to_spare():
    assert pairwise(FULL, lambda case: case[:2]) == FULL[:: len(FULL) // 16]
    assert pairwise([], tuple) == []
