"""The step by hand: its parts, pipelines, recomputation, and what a layout may not change."""

from dataclasses import fields

import numpy as np
import pytest

from parbench.predict.calibrate import predicted
from parbench.predict.constants import PRIORS, Constants, from_logarithms, prior_constants, to_logarithms
from parbench.predict.cost import model_flops, step_costs
from parbench.predict.problem import Problem
from tests.predict.problems import PLAIN, ideal, problem


def test_the_step_is_the_sum_of_its_parts():
    costs = step_costs(problem(data=2, tensor=2, pipeline=2, micro_batches=4), prior_constants())
    assert costs.step[0] == pytest.approx(sum(float(getattr(costs, field.name)[0]) for field in fields(costs)))


def test_a_pipeline_takes_a_turn_for_each_micro_batch_and_waits_for_its_stages():
    costs = step_costs(problem(pipeline=4, micro_batches=8, vocab=8), ideal())
    turn = (costs.compute[0] + costs.p2p[0]) / 8
    assert costs.bubble[0] == pytest.approx(3 * turn)
    interleaved = step_costs(problem(pipeline=4, micro_batches=8, vocab=8, interleave=2), ideal())
    assert interleaved.bubble[0] == pytest.approx(3 / 2 * (interleaved.compute[0] + interleaved.p2p[0]) / 8)


def test_the_last_stage_has_the_head_and_so_fewer_blocks():
    # Five blocks on two stages: three and two. A head of no cost leaves the first stage the slowest.
    even = problem(layers=6, pipeline=2, vocab=8)
    assert (even.stage_layers[0], even.last_stage_layers[0]) == (3, 3)
    odd = problem(layers=5, pipeline=2, vocab=8)
    assert (odd.stage_layers[0], odd.last_stage_layers[0]) == (3, 2)
    assert step_costs(odd, ideal()).step[0] == pytest.approx(step_costs(even, ideal()).step[0], rel=1e-2)


def test_full_recomputation_repeats_the_forward_pass():
    once, again = (step_costs(problem(vocab=8, recompute=share), ideal()) for share in (0, 1))
    assert 1.25 < again.compute[0] / once.compute[0] < 4 / 3


def test_a_step_of_more_devices_on_the_same_batch_is_shorter():
    alone = step_costs(problem(micro_batches=8), prior_constants()).step[0]
    shared = step_costs(problem(micro_batches=1, data=8), prior_constants()).step[0]
    assert alone / 8 < shared < alone


def test_throughput_is_the_tokens_of_a_step_over_its_time():
    found = problem(micro_batch=2, micro_batches=4, data=2)
    assert found.step_tokens[0] == 2 * 4 * 2 * 1024
    assert predicted(found, ideal())[0] == pytest.approx(16_384 / step_costs(found, ideal()).step[0])


def test_the_host_counts_where_the_device_is_faster():
    idle = step_costs(problem(vocab=8), ideal(launch=1.0))
    block = idle.compute[0] / 4
    assert idle.host[0] == pytest.approx(4 * (2.0 - block), rel=0.01)
    assert step_costs(problem(vocab=8), ideal()).host[0] == 0


def test_model_flops_are_six_a_weight_and_attention_in_full():
    assert model_flops(problem())[0] == 6 * (4 * 12 * 1024**2 + 32_768 * 1024) + 12 * 4 * 1024 * 1024


def test_many_layouts_cost_what_each_of_them_does_alone():
    numbers = [
        {"tensor": 2.0, "micro_batch": 2.0},
        {"pipeline": 2.0, "micro_batches": 6.0},
        {"data": 8.0, "shards": 8.0},
    ]
    together = predicted(Problem.stacked([{**PLAIN, **each} for each in numbers]), prior_constants())
    assert together == pytest.approx(np.array([predicted(problem(**each), prior_constants())[0] for each in numbers]))


def test_every_constant_has_a_prior_and_there_are_at_most_fifteen():
    assert tuple(PRIORS) == Constants._fields
    assert len(PRIORS) <= 15
    assert from_logarithms(to_logarithms(prior_constants())) == pytest.approx(prior_constants())
