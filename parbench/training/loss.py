"""The loss of next tokens, from logits."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional

TokenLoss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of logits (batch, seq_len, vocab_size) for targets (batch, seq_len)."""


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token, in fp32; logits (batch, seq_len, vocab_size), targets (batch, seq_len)."""
    flat, wanted = logits.flatten(0, 1), targets.flatten()
    if isinstance(logits, DTensor):
        # Where logits are split over devices, every device has the whole loss.
        loss = functional.cross_entropy(flat.float(), wanted)
        return loss.full_tensor() if isinstance(loss, DTensor) else loss
    # CUDA's kernel reads 16-bit logits itself: a copy in fp32 would be the largest tensor of a step.
    return functional.nll_loss(functional.log_softmax(flat, dim=-1, dtype=torch.float32), wanted)
