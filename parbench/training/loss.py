"""The loss of next tokens: from whole logits, or with the head over one chunk of the tokens at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

TokenLoss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of logits (batch, seq_len, vocab_size) for targets (batch, seq_len)."""

Share = Callable[[Tensor, Tensor], Tensor]
"""What a chunk of hidden states adds to the mean loss over all tokens, given its targets."""


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token, in fp32; logits (batch, seq_len, vocab_size), targets (batch, seq_len)."""
    flat, wanted = logits.flatten(0, 1), targets.flatten()
    if isinstance(logits, DTensor):
        # Where logits are split over devices, every device has the whole loss.
        loss = functional.cross_entropy(flat.float(), wanted)
        return loss.full_tensor() if isinstance(loss, DTensor) else loss
    # CUDA's kernel reads 16-bit logits itself: a copy in fp32 would be the largest tensor of a step.
    return functional.nll_loss(functional.log_softmax(flat, dim=-1, dtype=torch.float32), wanted)


def whole_loss(head: nn.Module, hidden: Tensor, targets: Tensor, *, loss: TokenLoss) -> Tensor:
    """The mean `loss` of `head(hidden)`, from whole logits; hidden states (batch, seq_len, width)."""
    return loss(head(hidden), targets)


def chunked_loss(head: nn.Module, hidden: Tensor, targets: Tensor, *, chunks: int, loss: TokenLoss) -> Tensor:
    """The mean `loss` of `head(hidden)`, one chunk of the logits at a time; hidden states (batch, seq_len, width).

    Tokens are cut into at most `chunks` equal parts, wherever sequences end, so the head must work on each token alone.
    A part's gradients are computed right after its logits, as in Liger Kernel (Hsu et al. 2024): no logits are kept,
    and none are computed twice. They are summed in fp32, before any loss scale is known.
    """
    states, wanted = hidden.flatten(0, 1).unsqueeze(0), targets.reshape(1, -1)
    size = -(-wanted.numel() // chunks)

    def share(part: Tensor, its_targets: Tensor) -> Tensor:
        return loss(head(part), its_targets) * (its_targets.numel() / wanted.numel())

    if not torch.is_grad_enabled():
        return torch.stack([share(*pair) for pair in _cut(size, states, wanted)]).sum()
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    mean: Tensor = _EarlyGradients.apply(share, size, wanted, states, *parameters)  # type: ignore[no-untyped-call]
    return mean


class _EarlyGradients(torch.autograd.Function):
    """Sums the shares of all chunks, and has their gradients before the backward pass comes, which scales them."""

    @staticmethod
    def forward(ctx: Any, share: Share, size: int, targets: Tensor, states: Tensor, *parameters: Tensor) -> Tensor:
        of_states = torch.empty_like(states)
        of_head = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
        mean = torch.zeros((), device=states.device)
        for part, its_targets, place in _cut(size, states, targets, of_states):
            mean += _take_gradients(share, part, its_targets, parameters, place, of_head)
        ctx.save_for_backward(of_states, *of_head)
        return mean

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        # In place: a second copy of the head's gradients would take what chunks save.
        return None, None, None, *(gradient.mul_(scale) for gradient in ctx.saved_tensors)


def _take_gradients(
    share: Share, part: Tensor, targets: Tensor, parameters: Sequence[Tensor], place: Tensor, of_head: Sequence[Tensor]
) -> Tensor:
    """A chunk's share of the loss. Its gradients go to `place`, and are added to those of the head."""
    with torch.enable_grad():
        leaf = part.detach().requires_grad_()
        loss = share(leaf, targets)
    # A backward pass that follows the forward pass is outside of its autocast, too.
    with torch.autocast(part.device.type, enabled=False):
        of_part, *others = torch.autograd.grad(loss, (leaf, *parameters))
    place.copy_(of_part)
    for gradients, gradient in zip(of_head, others, strict=True):
        gradients.add_(gradient)
    return loss.detach()


def _cut(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of (1, tokens, …) with `size` tokens each, the last with what is left."""
    return zip(*(tensor.split(size, dim=1) for tensor in tensors), strict=True)
