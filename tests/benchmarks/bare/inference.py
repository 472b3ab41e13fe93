"""Scoring and greedy decoding with a model of which every rank has all, or which gathers what it needs by itself."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from tests.benchmarks.bare.models import LENGTH, PROMPT, Cache, Setting, Step, cross_entropy

Mode = Callable[[], AbstractContextManager]


def scoring(model: nn.Module, setting: Setting, *, whole: bool = False, mode: Mode = torch.inference_mode) -> Step:
    """A step is the loss of a batch."""
    model.eval()

    def step(index):
        with mode():
            tokens = setting.batch(index, whole=whole)
            return cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])

    return step


def generating(model: nn.Module, setting: Setting, *, whole: bool = False, mode: Mode = torch.inference_mode) -> Step:
    """A step continues a batch of prompts."""
    model.eval()

    def step(index):
        with mode():
            tokens, start = setting.batch(index, whole=whole)[:, :PROMPT], 0
            caches, generated = [Cache() for _ in model.blocks], []
            for _ in range(LENGTH - PROMPT):
                logits = model(tokens, caches, start)
                start += tokens.shape[1]
                tokens = logits.argmax(-1)
                generated.append(tokens)
            return torch.cat(generated, 1)

    return step
