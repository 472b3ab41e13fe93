"""Greedy decoding: after a prompt, token by token, always the likeliest."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from parbench.models.nn.cache import Place

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


class StaticDecoder:
    """Greedy decoding of which the step of one token has fixed shapes, in fixed places: a CUDA graph can replay it.

    Sequences of prompt and new tokens have `length` tokens. All prompts have the shape of the first ones.
    """

    def __init__(self, model: nn.Module, length: int) -> None:
        self._model = model
        self._length = length
        self._caches: list[Any] = []

    def decode(self, prompts: Tensor, mark: Mark, step: Callable[[], object]) -> Tensor:
        """As `decode_greedily`, where `step` does what `self.step` does."""
        generated = [self._take_in(prompts)]
        mark()
        for _ in range(self._length - prompts.shape[1] - 1):
            step()
            generated.append(self._tokens.clone())
            mark()
        return torch.cat(generated, dim=1)

    def step(self) -> None:
        """Puts the next token of each sequence in the place of its latest."""
        logits = self._model(self._tokens, self._caches, self._place.start)
        self._tokens.copy_(choose_likeliest(logits))
        self._place.advance()

    def _take_in(self, prompts: Tensor) -> Tensor:
        """The tokens (batch, 1) that follow the prompts, which then are in the static caches."""
        length = prompts.shape[1]
        caches = self._model.new_caches(length)  # type: ignore[operator]
        tokens = choose_likeliest(self._model(prompts, caches, 0))
        if not self._caches:
            self._place = Place(self._length, prompts.device)
            self._caches = [cache.static(self._place) for cache in caches]
            self._tokens = torch.empty_like(tokens)
        for static, cache in zip(self._caches, caches, strict=True):
            static.take(cache)
        self._tokens.copy_(tokens)
        self._place.move_to(length)
        return tokens


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
