"""What the cost model is asked: a model, a machine, its software and a layout, as arrays with an element a layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from parbench.models.shape import Shape
from parbench.predict.clusters import Cluster, Format

Array = NDArray[np.float64]
Numbers = Mapping[str, float]
"""A part of one element of a problem, by the names of its fields."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Arrays that broadcast against each other; yes and no are 1 and 0.

    Model: the fields of `Shape`, with the number of the MLP's matrices, `vocab` and `seq_len`.

    Machine: `matmul` is what products reach in the format that they compute in, `matmul16` in 16 bits (or in the
    workload's own, where that is wider), in operations per second; `power` the enforced share of the power limit;
    bandwidths are in bytes per second a device, `memory` in bytes. Latencies are 0 where they were not measured.

    Software: bytes of an element of activations, weights, gradients, the optimizer's states, and of a weight that is
    gathered; whether attention keeps its scores out of memory, is written for this generation of devices, or was the
    first of its kind; whether elementwise operations are fused, and the share of the tensor-parallel traffic that is
    hidden by design.

    Layout: the degrees; `interleave` stages a rank; `micro_batch` sequences of each of `micro_batches`; parameters in
    `shards` parts, or the optimizer's states in parts of all replicas (`zero`); `sequence_parallel` activations;
    `recompute` is the share of a forward pass that the backward pass repeats, and `recompute_attention` says that it
    repeats the attention at least.
    """

    layers: Array
    width: Array
    heads: Array
    key_value_heads: Array
    mlp_width: Array
    mlp_matrices: Array
    vocab: Array
    seq_len: Array
    causal: Array
    scored: Array

    matmul: Array
    matmul16: Array
    hopper: Array
    blackwell: Array
    power: Array
    multiprocessors: Array
    memory_bandwidth: Array
    memory: Array
    per_node: Array
    node_bandwidth: Array
    node_latency: Array
    network_bandwidth: Array
    network_latency: Array

    element_bytes: Array
    weight_bytes: Array
    gradient_bytes: Array
    optimizer_bytes: Array
    gathered_bytes: Array
    fused_attention: Array
    native_attention: Array
    early_attention: Array
    fused_kernels: Array
    hidden_tensor: Array

    data: Array
    tensor: Array
    pipeline: Array
    context: Array
    interleave: Array
    micro_batch: Array
    micro_batches: Array
    shards: Array
    zero: Array
    sequence_parallel: Array
    recompute: Array
    recompute_attention: Array

    @classmethod
    def stacked(cls, elements: Sequence[Numbers]) -> Self:
        """A problem with an element for each of these."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.array([float(element[name]) for element in elements]) for name in names})

    @classmethod
    def over(cls, common: Numbers, layouts: Mapping[str, Array]) -> Self:
        """The same model, machine and software in many layouts."""
        return cls(**{name: np.array([float(value)]) for name, value in common.items()}, **layouts)

    @property
    def tokens(self) -> Array:
        """Tokens of a micro-batch on one device."""
        return self.micro_batch * self.seq_len / self.context

    @property
    def step_tokens(self) -> Array:
        """Tokens of a step on all devices."""
        return self.micro_batch * self.micro_batches * self.data * self.seq_len

    @property
    def devices(self) -> Array:
        """How many devices take part."""
        return self.data * self.tensor * self.pipeline * self.context

    @property
    def head_size(self) -> Array:
        """Channels of a head."""
        return self.width / self.heads

    @property
    def key_value_width(self) -> Array:
        """Channels of all keys."""
        return self.key_value_heads * self.head_size

    @property
    def block_parameters(self) -> Array:
        """Weights of one block."""
        attention = 2 * self.width * (self.width + self.key_value_width)
        return attention + self.mlp_matrices * self.width * self.mlp_width

    @property
    def parameters(self) -> Array:
        """Weights of all blocks and of the vocabulary, once."""
        return self.layers * self.block_parameters + self.vocab * self.width

    @property
    def stage_layers(self) -> Array:
        """Blocks of the stages that have the most."""
        return np.ceil(self.layers / self.pipeline)

    @property
    def last_stage_layers(self) -> Array:
        """Blocks of the last stage, which gets one fewer where they do not divide: it also has the head."""
        spare = self.stage_layers * self.pipeline - self.layers
        return np.maximum(self.stage_layers - np.minimum(spare, 1), 0)

    @property
    def stage_parameters(self) -> Array:
        """Weights of a device of the first stage, before they are sharded over replicas."""
        return (self.stage_layers * self.block_parameters + self.vocab * self.width) / self.tensor


def model_numbers(shape: Shape, vocab_size: int, seq_len: int) -> dict[str, float]:
    """The fields of a model."""
    return {
        "layers": shape.layers,
        "width": shape.width,
        "heads": shape.heads,
        "key_value_heads": shape.key_value_heads,
        "mlp_width": shape.mlp_width,
        "mlp_matrices": 3 if shape.gated else 2,
        "vocab": vocab_size,
        "seq_len": seq_len,
        "causal": shape.causal,
        "scored": shape.scored,
    }


def machine_numbers(cluster: Cluster, number_format: Format) -> dict[str, float]:
    """The fields of a machine whose products compute in a format. Raises `ScenarioError` without a speed in it."""
    device, links = cluster.device, cluster.links
    wide: Format = number_format if number_format in ("fp32", "tf32", "fp16", "bf16") else "bf16"
    return {
        "matmul": cluster.speed(number_format),
        "matmul16": cluster.speed(wide),
        "hopper": device.generation == "hopper",
        "blackwell": device.generation == "blackwell",
        "power": device.power_share,
        "multiprocessors": device.multiprocessors,
        "memory_bandwidth": device.memory_bandwidth,
        "memory": device.memory_bytes,
        "per_node": cluster.devices_per_node,
        "node_bandwidth": links.node.bandwidth,
        "node_latency": links.node.latency_s,
        "network_bandwidth": links.network.bandwidth,
        "network_latency": links.network.latency_s,
    }
