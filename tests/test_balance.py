from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.balance import cut_into_stages
from parbench.workloads.base import Work

works = st.builds(Work, embed=st.floats(0, 10), block=st.floats(0.1, 10), head=st.floats(0, 50))


def costliest(costs, cuts):
    return max(sum(costs[start:stop]) for start, stop in zip((0, *cuts), (*cuts, len(costs)), strict=True))


@given(n_blocks=st.integers(1, 9), stages=st.integers(1, 10), work=works)
def test_no_other_cut_has_a_cheaper_costliest_stage(n_blocks, stages, work):
    if stages > n_blocks + 1:
        with pytest.raises(ValueError, match="too few"):
            cut_into_stages(n_blocks, work, stages)
        return
    found = cut_into_stages(n_blocks, work, stages)
    costs = [work.embed + work.block, *[work.block] * (n_blocks - 1), work.head]
    best = min(costliest(costs, cuts) for cuts in combinations(range(1, len(costs)), stages - 1))
    assert max(stage.share for stage in found) == pytest.approx(best / sum(costs), rel=1e-4)


@given(n_blocks=st.integers(1, 30), stages=st.integers(1, 12), work=works)
def test_stages_hold_every_part_once_and_in_order(n_blocks, stages, work):
    if stages <= n_blocks + 1:
        found = cut_into_stages(n_blocks, work, stages)
        assert [block for stage in found for block in stage.blocks] == list(range(n_blocks))
        assert [stage.embed for stage in found] == [True] + [False] * (stages - 1)
        assert [stage.head for stage in found] == [False] * (stages - 1) + [True]
        assert sum(stage.share for stage in found) == pytest.approx(1)


def test_a_costly_head_is_a_stage_of_its_own():
    first, last = cut_into_stages(4, Work(embed=0, block=1, head=4), 2)
    assert (str(first), str(last)) == ("embed+block 0–3 50%", "head 50%")


def test_the_last_stage_is_spared_a_block_for_its_head():
    assert [len(stage.blocks) for stage in cut_into_stages(4, Work(embed=0, block=1, head=1.5), 2)] == [3, 1]


def test_without_known_work_blocks_are_shared_evenly():
    assert [len(stage.blocks) for stage in cut_into_stages(8, None, 4)] == [2, 2, 2, 2]
