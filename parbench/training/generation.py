"""Greedy decoding: a prompt, then token after token, each the likeliest to follow."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Mark = Callable[[], None]


def decode_greedily(model: nn.Module, prompts: Tensor, new_tokens: int, mark: Mark) -> Tensor:
    """The `new_tokens` tokens (batch, new_tokens) that `model` puts after `prompts` (batch, length).

    The prompt goes through the model once, then every token by itself, with what blocks remember in caches. `mark` is
    called when each token is there (on CUDA: is queued to be).
    """
    length = prompts.shape[1]
    caches = model.new_caches(length + new_tokens)  # type: ignore[operator]
    tokens, generated, start = prompts, list[Tensor](), 0
    for _ in range(new_tokens):
        logits = model(tokens, caches, start)
        start += tokens.shape[1]
        tokens = likeliest(logits)
        generated.append(tokens)
        mark()
    return torch.cat(generated, dim=1)


def likeliest(logits: Tensor) -> Tensor:
    """The token ids (batch, 1) of the largest logits (batch, 1, vocab_size), which may lie split over devices."""
    whole = logits.full_tensor() if isinstance(logits, DTensor) else logits
    return whole.argmax(dim=-1)
