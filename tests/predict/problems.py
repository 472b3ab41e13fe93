"""Problems of round numbers, whose costs can be worked out by hand."""

from parbench.predict.constants import Constants, prior_constants
from parbench.predict.problem import Problem

PLAIN: dict[str, float] = {
    "layers": 4,
    "width": 1024,
    "heads": 8,
    "key_value_heads": 8,
    "mlp_width": 4096,
    "mlp_matrices": 2,
    "vocab": 32_768,
    "seq_len": 1024,
    "causal": 1,
    "scored": 1,
    "matmul": 1e14,
    "matmul16": 1e14,
    "hopper": 0,
    "blackwell": 0,
    "power": 1,
    "multiprocessors": 1,
    "memory_bandwidth": 1e12,
    "memory": 64e9,
    "per_node": 8,
    "node_bandwidth": 1e11,
    "node_latency": 0,
    "network_bandwidth": 1e10,
    "network_latency": 0,
    "element_bytes": 2,
    "weight_bytes": 2,
    "gradient_bytes": 2,
    "optimizer_bytes": 12,
    "gathered_bytes": 2,
    "fused_attention": 1,
    "native_attention": 1,
    "early_attention": 0,
    "fused_kernels": 0,
    "hidden_tensor": 0,
    "data": 1,
    "tensor": 1,
    "pipeline": 1,
    "context": 1,
    "interleave": 1,
    "micro_batch": 1,
    "micro_batches": 1,
    "shards": 1,
    "zero": 0,
    "sequence_parallel": 0,
    "recompute": 0,
    "recompute_attention": 0,
}


def problem(**changes: float) -> Problem:
    assert set(changes) <= set(PLAIN)
    return Problem.stacked([{**PLAIN, **changes}])


def ideal(**changes: float) -> Constants:
    """Constants under which everything is as fast as the machine says, but for these."""
    perfect = {
        "matmul": 1.0,
        "hopper": 1.0,
        "blackwell": 1.0,
        "tile": 0.0,
        "quantised": 1.0,
        "unaligned": 1.0,
        "attention": 1.0,
        "elementwise": 1.0,
        "small_formats": 1.0,
        "latency": 0.0,
        "links": 1.0,
        "exposed_tensor": 1.0,
        "exposed_data": 1.0,
        "launch": 0.0,
        "micro_batch": 0.0,
    }
    return prior_constants()._replace(**{**perfect, **changes})
