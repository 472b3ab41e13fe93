"""The bytes that the fullest device of a layout holds: states, activations in flight, logits, and what is kept back."""

from dataclasses import dataclass, fields

import numpy as np

from parbench.predict.compute import block_activations
from parbench.predict.problem import Array, Problem

LOGIT_COPIES = 5.0
"""Logits, their cast to 32 bits and its gradient, which count twice, are held at once."""

SCORE_COPIES = 2.5
"""Of the scores of unfused attention: softmax, dropout, and a mask of a byte (Korthikanti et al. 2022)."""

SMALL_FORMAT_SHARE = 0.6
"""Of the bytes of a block's activations, where products below 16 bits keep their inputs as they are multiplied."""

RESERVE_SHARE, RESERVE_BYTES = 0.12, 2.5e9
"""What an allocator loses to fragments, and what the context, libraries and communicators take: orders of magnitude."""

TIGHT = 0.15
"""A layout whose need is within this share of the capacity may fit or not."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of the fullest device by kind."""

    weights: Array
    gradients: Array
    optimizer: Array
    activations: Array
    logits: Array
    reserve: Array

    @property
    def allocated(self) -> Array:
        """What tensors take."""
        return self.total - self.reserve

    @property
    def total(self) -> Array:
        """All of it."""
        total = np.zeros(1)
        for field in fields(self):
            total = total + getattr(self, field.name)
        return total


def memory_need(problem: Problem) -> Memory:
    """What a layout needs. The first stage has the most micro-batches in flight, and the embedding."""
    held = problem.stage_parameters / problem.shards
    # Of sharded weights, one block is whole while it computes, and the next is on its way.
    whole = 2 * problem.block_parameters / problem.tensor * problem.gathered_bytes
    holders = np.where(problem.zero > 0, problem.data * problem.context, 1.0)
    weights = held * problem.weight_bytes + np.where(problem.shards > 1, whole, 0.0)
    tensors = {
        "weights": weights,
        "gradients": held * problem.gradient_bytes,
        "optimizer": held * problem.optimizer_bytes / holders,
        "activations": _activations(problem),
        "logits": _logits(problem),
    }
    return Memory(**tensors, reserve=RESERVE_SHARE * sum(tensors.values(), np.zeros(1)) + RESERVE_BYTES)


def in_flight(problem: Problem) -> Array:
    """How many micro-batches' activations the first stage holds, in units of its own blocks.

    1F1B holds one a stage behind it; interleaving adds (p − 1)/(p v) of that (Korthikanti et al. 2022, section 4.2.3).
    """
    stages = np.minimum(problem.pipeline, problem.micro_batches)
    more = np.where(problem.interleave > 1, 1 + (problem.pipeline - 1) / (problem.pipeline * problem.interleave), 1.0)
    return stages * more


def _activations(problem: Problem) -> Array:
    scores = SCORE_COPIES * problem.element_bytes * problem.tokens * problem.seq_len * problem.heads / problem.tensor
    scores = np.where(problem.fused_attention > 0, 0.0, scores)
    activations = np.where(problem.matmul > problem.matmul16, SMALL_FORMAT_SHARE, 1.0) * block_activations(problem)
    block = activations + np.where(problem.recompute_attention > 0, 0.0, scores)
    split = np.where(problem.sequence_parallel > 0, problem.tensor, 1.0)
    checkpoint = problem.element_bytes * problem.tokens * problem.width / split
    saved = (1 - problem.recompute) * block + problem.recompute * checkpoint
    # While a block computes again, all of its activations are there once.
    working = np.where(problem.recompute > 0, activations + scores, 0.0)
    return in_flight(problem) * problem.stage_layers * saved + working


def _logits(problem: Problem) -> Array:
    logits = problem.element_bytes * problem.tokens * problem.scored * problem.vocab / problem.tensor
    # Of a pipeline the last stage has them, whose activations are fewer.
    return np.where(problem.pipeline > 1, 0.0, LOGIT_COPIES * logits)
