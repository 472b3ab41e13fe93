"""Greedy decoding: after a prompt, token by token, always the likeliest."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Mark = Callable[[], None]
"""Is called as each token is there; on CUDA, once its computation is queued."""


def decode_greedily(model: nn.Module, prompts: Tensor, new_tokens: int, mark: Mark) -> Tensor:
    """The tokens (batch, new_tokens) with which `model` continues `prompts` (batch, length).

    The prompt goes through the model once. Then each token goes through alone, and blocks find the positions before it
    in their caches. `mark` is called after each token.
    """
    length = prompts.shape[1]
    caches = model.new_caches(length + new_tokens)  # type: ignore[operator]
    tokens, generated, start = prompts, list[Tensor](), 0
    for _ in range(new_tokens):
        logits = model(tokens, caches, start)
        start += tokens.shape[1]
        tokens = choose_likeliest(logits)
        generated.append(tokens)
        mark()
    return torch.cat(generated, dim=1)


def measure_closest_choices(model: nn.Module, prompts: Tensor, tokens: Tensor) -> Tensor:
    """How far the two largest logits lie apart where the closest of a sequence's `tokens` was chosen (batch).

    `prompts` are (batch, length) and `tokens`, which the model chose after them, (batch, new_tokens).
    """
    logits = model(torch.cat([prompts, tokens[:, :-1]], dim=1))
    first, second = logits[:, prompts.shape[1] - 1 :].float().topk(2).values.unbind(-1)
    closest: Tensor = (first - second).amin(dim=1)
    return closest


def choose_likeliest(logits: Tensor) -> Tensor:
    """The token ids (batch, 1) of the largest logits (batch, 1, vocab_size), which may be split over devices."""
    full = logits.full_tensor() if isinstance(logits, DTensor) else logits
    return full.argmax(dim=-1)
