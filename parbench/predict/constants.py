"""What the cost model cannot derive: fifteen constants, each with a meaning, a unit and what is known of it."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Constants(NamedTuple):
    """The constants of the cost model; `PRIORS` says what each of them means."""

    matmul: float
    hopper: float
    blackwell: float
    tile: float
    quantised: float
    unaligned: float
    attention: float
    elementwise: float
    small_formats: float
    latency: float
    links: float
    exposed_tensor: float
    exposed_data: float
    launch: float
    micro_batch: float


class Prior(NamedTuple):
    """What is known of a constant before anything is fitted: its value, and the standard deviation of its logarithm."""

    value: float
    spread: float
    unit: str
    meaning: str


PRIORS = {
    "matmul": Prior(0.85, 0.1, "share", "of the measured peak of matrix products that large products reach for hours"),
    "hopper": Prior(0.92, 0.1, "share", "of that on Hopper, whose clocks fall under load"),
    "blackwell": Prior(1.0, 0.15, "share", "of that on Blackwell"),
    "tile": Prior(3e-6, 0.4, "seconds", "that a tile of a product takes besides multiplying, while it begins and ends"),
    "quantised": Prior(0.7, 0.5, "exponent", "on the share of a product's last wave of tiles that computes something"),
    "unaligned": Prior(0.12, 0.5, "share", "of its speed that unfused attention keeps with heads of no multiple of 8"),
    "attention": Prior(0.7, 0.15, "share", "of the speed of products that fused attention reaches with heads of 128"),
    "elementwise": Prior(2.0, 0.5, "times", "that a byte of saved activations passes the memory in a forward pass"),
    "small_formats": Prior(0.8, 0.2, "exponent", "on the speed of products below 16 bits over that of 16 bits"),
    "latency": Prior(40e-6, 0.5, "seconds", "of a collective within a node; times 1 + log2(nodes) between nodes"),
    "links": Prior(0.85, 0.2, "share", "of the bandwidth of links that collectives reach within a step"),
    "exposed_tensor": Prior(0.9, 0.15, "share", "of the tensor-parallel traffic that nothing hides"),
    "exposed_data": Prior(0.5, 0.4, "share", "of all other traffic that delays the computation beside it"),
    "launch": Prior(800e-6, 0.3, "seconds", "that the host takes to launch one pass of a block: some 60 kernels"),
    "micro_batch": Prior(2e-3, 0.7, "seconds", "that a pipeline loses at each micro-batch"),
}
"""matmul, hopper, blackwell, small_formats: utilisation that is common in public logs, over `hw_matmul_mamf.csv`.
attention: Dao 2023, FlashAttention-2, on A100 and H100. unaligned: without tensor cores an A100 multiplies at a quarter
of their speed or less (NVIDIA A100 white paper, 2020). latency, links: `hw_allreduce_busbw.csv`. The others are
orders of magnitude. hopper, blackwell, tile, attention, quantised and launch were set after a look at the residuals."""


def prior_constants() -> Constants:
    """The constants before anything is fitted."""
    return Constants(**{name: prior.value for name, prior in PRIORS.items()})


def spreads() -> list[float]:
    """The standard deviation of each constant's logarithm, in their order."""
    return [PRIORS[name].spread for name in Constants._fields]


def to_logarithms(constants: Constants) -> list[float]:
    """The logarithm of each constant, in their order."""
    return [math.log(value) for value in constants]


def from_logarithms(logarithms: Sequence[float]) -> Constants:
    """The constants with these logarithms."""
    return Constants(*(math.exp(value) for value in logarithms))
