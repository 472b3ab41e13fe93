"""Memory by hand: states, shards, activations in flight, logits."""

import pytest

from parbench.predict.memory import in_flight, memory_need
from tests.predict.problems import problem

WEIGHTS = 4 * 12 * 1024**2 + 32_768 * 1024


def test_states_are_bytes_a_weight():
    need = memory_need(problem())
    assert (need.weights[0], need.gradients[0], need.optimizer[0]) == (2 * WEIGHTS, 2 * WEIGHTS, 12 * WEIGHTS)
    assert need.total[0] == pytest.approx(need.allocated[0] + need.reserve[0])


def test_zero_shards_the_states_and_fsdp_everything():
    assert memory_need(problem(data=4, zero=1)).optimizer[0] == 3 * WEIGHTS
    assert memory_need(problem(data=4, zero=1)).gradients[0] == 2 * WEIGHTS
    sharded = memory_need(problem(data=4, shards=4))
    assert (sharded.gradients[0], sharded.optimizer[0]) == (WEIGHTS / 2, 3 * WEIGHTS)
    # Two blocks are whole at once.
    assert sharded.weights[0] == WEIGHTS / 2 + 2 * 12 * 1024**2 * 2


def test_activations_are_those_of_the_micro_batches_in_flight():
    assert in_flight(problem(pipeline=4, micro_batches=8))[0] == 4
    assert in_flight(problem(pipeline=4, micro_batches=2))[0] == 2
    assert in_flight(problem(pipeline=4, micro_batches=8, interleave=2))[0] == pytest.approx(4 * (1 + 3 / 8))


def test_a_block_keeps_rows_and_what_lies_between_its_products():
    block = 2 * 1024 * (5 * 1024 + 2 * 1024 + 2 * 1024 + 2 * 4096)
    assert memory_need(problem()).activations[0] == 4 * block
    split = 2 * 1024 * (5 * 1024 + (2 * 1024 + 2 * 1024 + 2 * 4096) / 4)
    assert memory_need(problem(tensor=4)).activations[0] == 4 * split
    assert memory_need(problem(tensor=4, sequence_parallel=1)).activations[0] == block


def test_full_recomputation_keeps_the_inputs_of_blocks():
    again = memory_need(problem(recompute=1, recompute_attention=1)).activations[0]
    block = 2 * 1024 * (5 * 1024 + 2 * 1024 + 2 * 1024 + 2 * 4096)
    assert again == 4 * 2 * 1024 * 1024 + block


def test_logits_are_held_with_their_cast_and_its_gradient():
    assert memory_need(problem()).logits[0] == 5 * 2 * 1024 * 32_768
