from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.models.stages import cut_into_stages

parts = st.builds(
    lambda embed, blocks, head: (embed, *blocks, head),
    st.floats(0, 10),
    st.lists(st.floats(0.1, 10), min_size=1, max_size=9),
    st.floats(0, 50),
)


def costliest(costs, cuts):
    return max(sum(costs[start:stop]) for start, stop in zip((0, *cuts), (*cuts, len(costs)), strict=True))


@given(stages=st.integers(1, 10), parts=parts)
def test_no_other_cut_has_a_cheaper_costliest_stage(stages, parts):
    costs = [parts[0] + parts[1], *parts[2:]]
    if stages > len(costs):
        with pytest.raises(ValueError, match="too few"):
            cut_into_stages(parts, stages)
        return
    found = cut_into_stages(parts, stages)
    best = min(costliest(costs, cuts) for cuts in combinations(range(1, len(costs)), stages - 1))
    assert max(stage.share for stage in found) == pytest.approx(best / sum(costs), rel=1e-4)


@given(stages=st.integers(1, 10), parts=parts)
def test_stages_hold_every_part_once_and_in_order(stages, parts):
    n_blocks = len(parts) - 2
    if stages <= n_blocks + 1:
        found = cut_into_stages(parts, stages)
        assert [block for stage in found for block in stage.blocks] == list(range(n_blocks))
        assert [stage.embed for stage in found] == [True] + [False] * (stages - 1)
        assert [stage.head for stage in found] == [False] * (stages - 1) + [True]
        assert sum(stage.share for stage in found) == pytest.approx(1)


def test_a_costly_head_is_a_stage_of_its_own():
    first, last = cut_into_stages([0, 1, 1, 1, 1, 4], 2)
    assert (str(first), str(last)) == ("embed+block 0–3 50%", "head 50%")


def test_the_last_stage_is_spared_a_block_for_its_head():
    assert [len(stage.blocks) for stage in cut_into_stages([0, 1, 1, 1, 1, 1.5], 2)] == [3, 1]


def test_blocks_that_cost_more_are_fewer_in_a_stage():
    assert [len(stage.blocks) for stage in cut_into_stages([0, 1, 1, 1, 3, 0], 2)] == [3, 1]
