"""A scenario's workload as the model and the software of a problem."""

from typing import NamedTuple

from parbench.errors import UsageError
from parbench.predict.clusters import Cluster
from parbench.predict.problem import machine_numbers, model_numbers
from parbench.scenario.specs import WorkloadSpec

OPTIMIZER_BYTES = {"adam": 8.0, "adamw": 8.0, "sgd": 0.0}
"""Of a weight's states, which are in 32 bits as the weights are; momentum has 4 more."""


class Posed(NamedTuple):
    """What of a problem is the same for all layouts, and what had to be assumed."""

    numbers: dict[str, float]
    assumed: tuple[str, ...]


def pose(workload: WorkloadSpec, cluster: Cluster) -> Posed:
    """The problem of training a workload on a cluster, without a layout. Raises `UsageError` where it has no shape."""
    shape = workload.model.shape()
    if shape is None:
        raise UsageError(
            f"models of family {workload.model.kind} have no shape that is known: predict needs blocks of Transformers"
        )
    if workload.phase != "train":
        raise UsageError(f"parbench predict is for phase train, not {workload.phase}")
    is_wide = workload.precision in ("fp32", "tf32")
    momentum = 4.0 if workload.optimizer.momentum else 0.0
    software = {
        "element_bytes": 4.0 if is_wide else 2.0,
        "weight_bytes": 4.0,
        "gradient_bytes": 4.0,
        "optimizer_bytes": OPTIMIZER_BYTES[workload.optimizer.name] + momentum,
        "gathered_bytes": 4.0 if is_wide else 2.0,
        "fused_attention": 1.0,
        "native_attention": float(cluster.device.generation not in ("hopper", "blackwell")),
        "early_attention": 0.0,
        "fused_kernels": float(workload.compile),
        "hidden_tensor": 0.0,
    }
    numbers = {
        **model_numbers(shape, workload.vocab_size, workload.seq_len),
        **machine_numbers(cluster, workload.precision),
        **software,
    }
    assumed = (
        "attention is fused",
        "weights and states are in 32 bits",
        "ZeRO, HSDP and context parallelism, which no strategy of parbench lays out, are as others have them",
    )
    return Posed(numbers, assumed + (("FSDP gathers weights in 16 bits",) if not is_wide else ()))
