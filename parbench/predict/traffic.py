"""Seconds that devices exchange: tensor, context, data and pipeline parallelism, sharded parameters."""

import numpy as np

from parbench.predict.constants import Constants
from parbench.predict.problem import Array, Problem


def within_node(problem: Problem, ranks: Array, inside: Array) -> Array:
    """How many of a group's `ranks` share a node, where `inside` devices lie between two neighbours of the group."""
    return np.clip(np.floor(problem.per_node / inside), 1.0, ranks)


def collective(problem: Problem, constants: Constants, ranks: Array, inside: Array, on_bus: Array) -> Array:
    """Seconds of a collective that carries `on_bus` bytes over each device's link.

    Between nodes the members of a group on one node share its adapters with the groups beside theirs.
    """
    together = within_node(problem, ranks, inside)
    nodes = np.ceil(ranks / together)
    between = np.minimum(problem.node_bandwidth, problem.network_bandwidth * together)
    bandwidth = constants.links * np.where(nodes > 1, between, problem.node_bandwidth)
    measured = np.where(nodes > 1, problem.network_latency, problem.node_latency)
    latency = np.where(measured > 0, measured, constants.latency) * (1 + np.log2(nodes))
    return np.where(ranks > 1, latency + on_bus / bandwidth, 0.0)


def block_tensor(problem: Problem, constants: Constants) -> tuple[Array, Array]:
    """Seconds of a block's tensor-parallel exchange in the forward and in the backward pass: two all-reduces in each.

    Sequence parallelism cuts each into a reduce-scatter and an all-gather of the same volume.
    """
    ranks = problem.tensor
    volume = 2 * (ranks - 1) / ranks * problem.element_bytes * problem.tokens * problem.width
    once = collective(problem, constants, ranks, np.ones(1), volume)
    exposed = 2 * once * constants.exposed_tensor * (1 - problem.hidden_tensor)
    return exposed, exposed


def block_context(problem: Problem, constants: Constants) -> tuple[Array, Array]:
    """Seconds of the keys and values that pass round a block's attention, in the forward and in the backward pass."""
    ranks = problem.context
    volume = (ranks - 1) * problem.element_bytes * problem.tokens * 2 * problem.key_value_width / problem.tensor
    once = collective(problem, constants, ranks, problem.tensor, volume) * constants.exposed_data
    return once, 2 * once


def sharded_parameters(problem: Problem, constants: Constants, layers: Array, computing: Array) -> Array:
    """Seconds of gathering a stage's parameters twice and scattering their gradients, beside `computing` seconds."""
    shards, inside = problem.shards, problem.tensor
    weights = problem.stage_parameters * (shards - 1) / shards
    gathering = collective(problem, constants, shards, inside, 2 * weights * problem.gathered_bytes)
    scattering = collective(problem, constants, shards, inside, weights * problem.gradient_bytes)
    calls = collective(problem, constants, shards, inside, np.zeros(1)) * 3 * layers
    return exposed(constants, gathering + scattering + calls, computing)


def replicas(problem: Problem, constants: Constants, backward: Array) -> Array:
    """Seconds of making gradients and parameters equal in all replicas, beside the last `backward` pass."""
    ranks = problem.data * problem.context / problem.shards
    share = (ranks - 1) / ranks * problem.stage_parameters / problem.shards
    twice = np.where(problem.zero > 0, problem.gradient_bytes + problem.weight_bytes, 2 * problem.gradient_bytes)
    inside = problem.tensor * problem.shards
    return exposed(constants, collective(problem, constants, ranks, inside, share * twice), backward)


def neighbours(problem: Problem, constants: Constants) -> Array:
    """Seconds in which a micro-batch passes between two stages and its gradient returns, for all stages of a rank."""
    inside = problem.tensor * problem.context * problem.data
    crosses = within_node(problem, problem.pipeline, inside) < problem.pipeline
    bandwidth = constants.links * np.where(crosses, problem.network_bandwidth, problem.node_bandwidth)
    measured = np.where(crosses, problem.network_latency, problem.node_latency)
    latency = np.where(measured > 0, measured, constants.latency)
    message = problem.element_bytes * problem.tokens * problem.width / problem.tensor
    once = 2 * problem.interleave * (latency + message / bandwidth)
    # Interleaved stages compute another micro-batch meanwhile.
    exposed_share = np.where(problem.interleave > 1, constants.exposed_data, 1.0)
    return np.where(problem.pipeline > 1, exposed_share * once, 0.0)


def exposed(constants: Constants, traffic: Array, computing: Array) -> Array:
    """What traffic adds to the time of the computation that goes on beside it."""
    hidden = traffic * (1 - constants.exposed_data)
    return traffic - hidden + np.maximum(hidden - computing, 0.0)
