"""Runs blocks so that their backward passes compute activations again, instead of keeping them."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from parbench.models.checkpointing import Checkpointing

aten, collectives = torch.ops.aten, torch.ops._c10d_functional

KEPT = [
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    collectives.all_reduce.default,
    collectives.reduce_scatter_tensor.default,
]
"""What selective checkpointing keeps: results of matrix products and of attention, and sums over ranks.

Results that ranks gather are not among them: with sequence parallelism they are what is split to save memory.
"""


def run_checkpointed(block: nn.Module, hidden: Tensor, checkpointing: Checkpointing, *, draws_random: bool) -> Any:
    """What the block makes of `hidden`. Its activations are computed again when its gradients are.

    Method: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". If it `draws_random` numbers, they are
    the same again; otherwise the generator's state is not kept, which would cost time.
    """
    contexts = partial(create_selective_checkpoint_contexts, KEPT) if checkpointing == "selective" else noop_context_fn
    # Outside of the checkpoint nothing is saved but `hidden`.
    with save_on_cpu(pin_memory=True) if checkpointing == "offloaded" else nullcontext():
        return checkpoint(block, hidden, use_reentrant=False, preserve_rng_state=draws_random, context_fn=contexts)
