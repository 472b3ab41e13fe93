"""Attention of stacked models: one kernel that knows of gradients, and the values of models on their own."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from parbench.models.llama import Llama
from parbench.models.nn import kernels
from parbench.models.nn.folding import attend_folded
from parbench.models.transformer import Transformer
from parbench.strategies.ensemble import stack_models
from parbench.training.build import build_model

MODELS, BATCH, HEADS, LENGTH, SIZE = 3, 2, 4, 5, 8


def stacked(heads: int = HEADS) -> torch.Tensor:
    return torch.randn(MODELS, BATCH, heads, LENGTH, SIZE, requires_grad=True)


@pytest.mark.parametrize("key_value_heads", [HEADS, 2])
@pytest.mark.parametrize("is_causal", [True, False])
def test_stacked_models_attend_as_each_does_alone(key_value_heads, is_causal):
    parts = stacked(), stacked(key_value_heads), stacked(key_value_heads)
    how = {"is_causal": is_causal, "enable_gqa": key_value_heads != HEADS}
    together = torch.vmap(lambda *each: attend_folded(*each, **how))(*parts)
    alone = torch.stack([scaled_dot_product_attention(*each, **how) for each in zip(*parts, strict=True)])
    torch.testing.assert_close(together, alone)
    weights = torch.randn_like(together)
    for ours, theirs in zip(
        torch.autograd.grad((together * weights).sum(), parts),
        torch.autograd.grad((alone * weights).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_what_all_models_share_is_repeated_for_each():
    query, key = stacked(), torch.randn(BATCH, HEADS, LENGTH, SIZE)
    together = torch.vmap(lambda own: attend_folded(own, key, key, is_causal=True, enable_gqa=False))(query)
    alone = torch.stack([scaled_dot_product_attention(own, key, key, is_causal=True) for own in query])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("family", [Transformer(layers=2, d_model=16, heads=2), Llama(layers=2, d_model=16, heads=2)])
def test_a_stack_calls_one_kernel_a_block_which_knows_that_gradients_are_needed(monkeypatch, family):
    calls = []

    def watch(query, *rest, **how):
        calls.append((tuple(query.shape), query.requires_grad))
        return scaled_dot_product_attention(query, *rest, **how)

    monkeypatch.setattr(kernels, "scaled_dot_product_attention", watch)
    models = [build_model(family, vocab_size=11, seq_len=LENGTH, seed=f"0/{job}") for job in range(MODELS)]
    tokens = torch.randint(11, (MODELS, BATCH, LENGTH))
    stack_models(models)(tokens, tokens).sum().backward()
    assert calls == [((MODELS * BATCH, 2, LENGTH, 8), True)] * 2
