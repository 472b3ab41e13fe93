"""The step of a layout in seconds, part by part: what computes, what is exchanged, and what waits."""

from dataclasses import dataclass, fields

import numpy as np

from parbench.predict import compute, traffic
from parbench.predict.constants import Constants
from parbench.predict.problem import Array, Problem

UPDATE_BYTES = 4.0
"""Passes of the optimizer over its states, the gradients and the weights: it reads and writes most of them."""


ACCUMULATION_BYTES = 12.0
"""A weight, of adding a micro-batch's gradients to a sum in 32 bits: they are written and read, and so is the sum."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a step that go to each part; their sum is the step."""

    compute: Array
    host: Array
    tensor: Array
    context: Array
    fsdp: Array
    data: Array
    p2p: Array
    bubble: Array
    optimizer: Array

    @property
    def step(self) -> Array:
        """Seconds of the step."""
        total = np.zeros(1)
        for field in fields(self):
            total = total + getattr(self, field.name)
        return total


def step_costs(problem: Problem, constants: Constants) -> Costs:
    """The parts of a step.

    A pipeline of p ranks with v stages each is as fast as its slowest stage: m micro-batches pass it in
    m + (p − 1)/v turns (Narayanan et al. 2021, section 2.2).
    """
    block = _block(problem, constants)
    head = compute.logits(problem, constants)
    # The slowest stage is one of those with the most blocks, or the last, which has the head.
    is_last = problem.last_stage_layers * block.total + head >= problem.stage_layers * block.total
    layers = np.where(is_last, problem.last_stage_layers, problem.stage_layers)
    computing = layers * block.compute + np.where(is_last, head, 0.0) + _accumulation(problem)
    turn_host, turn_tensor, turn_context = layers * block.host, layers * block.tensor, layers * block.context
    turn_fsdp = np.where(problem.shards > 1, traffic.sharded_parameters(problem, constants, layers, computing), 0.0)
    turn_p2p = traffic.neighbours(problem, constants) + np.where(problem.pipeline > 1, constants.micro_batch, 0.0)
    turn = computing + turn_host + turn_tensor + turn_context + turn_p2p
    turns = problem.micro_batches
    return Costs(
        compute=turns * computing,
        host=turns * turn_host,
        tensor=turns * turn_tensor,
        context=turns * turn_context,
        fsdp=turns * turn_fsdp,
        data=traffic.replicas(problem, constants, computing / 2),
        p2p=turns * turn_p2p,
        bubble=(problem.pipeline - 1) / problem.interleave * turn,
        optimizer=_update(problem),
    )


def model_flops(problem: Problem) -> Array:
    """Operations that a token needs in a training step, however they are computed: six a weight, and full attention.

    Chowdhery et al. 2022 (PaLM), appendix B.
    """
    weights = problem.layers * problem.block_parameters + problem.vocab * problem.width * problem.scored
    return 6 * weights + 12 * problem.layers * problem.seq_len * problem.width


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Seconds of a block for one micro-batch, both passes and what is computed again."""

    compute: Array
    host: Array
    tensor: Array
    context: Array

    @property
    def total(self) -> Array:
        return self.compute + self.host + self.tensor + self.context


def _block(problem: Problem, constants: Constants) -> _Block:
    again = problem.recompute
    attention_again = np.maximum(again, problem.recompute_attention)
    products = compute.block_products(problem, constants)
    scores = compute.attention(problem, constants)
    moving = compute.memory_bound(problem, constants)
    exchange = traffic.block_tensor(problem, constants)
    round_trip = traffic.block_context(problem, constants)
    device = (
        (1 + again) * (products[0] + moving[0])
        + (1 + attention_again) * scores[0]
        + products[1]
        + moving[1]
        + scores[1]
    )
    tensor = (1 + again) * exchange[0] + exchange[1]
    launches = (2 + again) * compute.launching(problem, constants)
    return _Block(
        compute=device,
        host=np.maximum(launches - device - tensor, 0.0),
        tensor=tensor,
        context=(1 + attention_again) * round_trip[0] + round_trip[1],
    )


def _accumulation(problem: Problem) -> Array:
    """Seconds of adding a micro-batch's gradients to those before; sharded ones are scattered first."""
    moved = ACCUMULATION_BYTES * problem.stage_parameters / problem.shards
    return moved / problem.memory_bandwidth


def _update(problem: Problem) -> Array:
    """Seconds of the optimizer, which passes over what this device holds of the states."""
    holders = np.where(problem.zero > 0, problem.data * problem.context, problem.shards)
    held = problem.stage_parameters / holders
    states = problem.optimizer_bytes + problem.weight_bytes + problem.gradient_bytes
    return UPDATE_BYTES / 2 * held * states / problem.memory_bandwidth
