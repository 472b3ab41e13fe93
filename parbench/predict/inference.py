"""What a published row leaves open: its micro-batches, and what its backward pass computes again. Memory decides."""

from collections.abc import Sequence

import numpy as np

from parbench.predict.cost import model_flops
from parbench.predict.memory import memory_need
from parbench.predict.problem import Numbers, Problem
from parbench.predict.rows import Row

Recomputation = tuple[float, float]
"""The share of the forward pass that is repeated, and whether attention is."""

NONE, ATTENTION, FULL = (0.0, 0.0), (0.0, 1.0), (1.0, 1.0)
HALF = (0.5, 1.0)
"""Every second layer, or every second product: what torchtitan calls selective."""

MICRO_BATCHES = (4.0, 2.0, 1.0)
"""What is tried where a row does not say, the largest that fits."""

MOST_ALLOCATED = 0.95
"""The share of a device's memory that the tensors of a tuned training take at most."""

RECOMPUTING_RATIO = 1.2
"""Operations a token over those that a model needs, above which a source's rate must count recomputation."""


def completed(row: Row, numbers: Numbers) -> tuple[dict[str, float], tuple[str, ...]]:
    """The numbers with micro-batches and recomputation, and which of these the row does not say.

    Where it says neither, nothing is computed again as long as that fits, in the largest micro-batch that does; else
    as little as makes the smallest one fit.
    """
    recomputation = _said(row) or _implied(row, numbers)
    stated, possible = _micro_batches(row, numbers)
    tried = [
        _with_choice(row, numbers, micro, again)
        for again in ([recomputation] if recomputation else [NONE, ATTENTION])
        for micro in possible
    ]
    chosen = next((each for each in tried if _need(each) <= each["memory"]), None)
    if chosen is None:
        chosen = tried[-1] if recomputation else _partly(tried[-1])
    has_batch = any(row.number(column) for column in ("global_batch", "replica_batch", "grad_accum"))
    open_fields = {"micro_batch": not stated, "global_batch": not has_batch, "act_ckpt": recomputation is None}
    return chosen, tuple(field for field, is_open in open_fields.items() if is_open)


def _micro_batches(row: Row, numbers: Numbers) -> tuple[bool, Sequence[float]]:
    """Whether the row says or implies its micro-batch, and what it is or may be."""
    replica, accumulated = _replica_batch(row, numbers), row.number("grad_accum")
    if micro := row.number("micro_batch"):
        return True, [micro]
    if replica and accumulated:
        return True, [max(1.0, replica / accumulated)]
    return False, [each for each in MICRO_BATCHES if replica is None or replica % each == 0] or [1.0]


def _replica_batch(row: Row, numbers: Numbers) -> float | None:
    """Sequences that a replica trains on in a step."""
    total = row.number("global_batch")
    return total / numbers["data"] if total else row.number("replica_batch")


def _with_choice(row: Row, numbers: Numbers, micro: float, again: Recomputation) -> dict[str, float]:
    # Published batches do not always divide: what is left over counts as a part of a micro-batch.
    replica = _replica_batch(row, numbers) if row.number("global_batch") else None
    count = max(1.0, replica / micro) if replica else row.number("grad_accum") or 1.0
    chosen = {"micro_batch": micro, "micro_batches": count}
    return {**numbers, **chosen, "recompute": again[0], "recompute_attention": again[1]}


def _partly(numbers: Numbers) -> dict[str, float]:
    """The numbers with the share of the blocks computed again that makes them fit, as far as that is possible."""
    least, most = (_need({**numbers, "recompute": share}) for share in (1e-9, 1.0))
    share = np.clip((least - numbers["memory"]) / max(least - most, 1.0), 0.0, 1.0)
    return {**numbers, "recompute": float(share), "recompute_attention": 1.0}


def _said(row: Row) -> Recomputation | None:
    """What the row says is computed again."""
    text, used, useful = row.text("act_ckpt").lower(), row.number("hfu"), row.number("mfu")
    if text.startswith(("none", "no", "false", "null")):
        return NONE
    if text.startswith(("full", "yes", "true", "uniform", "block")):
        return FULL
    if used and useful and text:
        return min(1.0, max(0.0, 3 * (used / useful - 1))), 1.0
    if text.startswith("selective"):
        return HALF if row.text("fsdp_shard") else ATTENTION
    return None


def _implied(row: Row, numbers: Numbers) -> Recomputation | None:
    """Full recomputation, where the row's rates in tokens and in operations differ by as much."""
    rate, tokens, devices = row.number("tflops_per_gpu"), row.number("tokens_per_s_total"), row.number("n_gpus")
    if not rate or not tokens or not devices:
        return None
    element = Problem.stacked([_with_choice(row, numbers, 1.0, NONE)])
    counted = rate * 1e12 * devices / tokens
    return FULL if counted > RECOMPUTING_RATIO * float(model_flops(element)[0]) else None


def _need(numbers: Numbers) -> float:
    """Bytes that have to fit: of a row that was measured all tensors did, however tightly."""
    return float(memory_need(Problem.stacked([numbers])).allocated[0]) / MOST_ALLOCATED
