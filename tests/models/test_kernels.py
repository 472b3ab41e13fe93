"""Attention over parts of the keys, put together again: that over all of them, with its gradients."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from parbench.models.nn.kernels import Mixture, attend, differentiate, mix

BATCH, HEADS, LENGTH, SIZE = 2, 4, 12, 8
SHARED = pytest.mark.parametrize("shared", [HEADS, 2, 1])


def draw(heads: int, length: int = LENGTH, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(BATCH, heads, length, SIZE, dtype=dtype, requires_grad=True)


def put_together(query: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Mixture:
    """What queries mix of all pairs of keys and values."""
    first, *others = (mix(query, key, value, is_causal=False) for key, value in pairs)
    whole = first.copied()
    for other in others:
        whole.take_in(other)
    return whole


@SHARED
@pytest.mark.parametrize("sizes", [[LENGTH], [5, 7], [1, 8, 3]])
def test_parts_of_the_keys_put_together_are_all_of_them(shared: int, sizes: list[int]) -> None:
    query, key, value = draw(HEADS), draw(shared), draw(shared)
    expected = scaled_dot_product_attention(query, key, value, enable_gqa=shared != HEADS)
    gradient = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (query, key, value), gradient)
    with torch.no_grad():
        pairs = list(zip(key.split(sizes, dim=2), value.split(sizes, dim=2), strict=True))
        whole = put_together(query, pairs)
        torch.testing.assert_close(whole.values, expected)
        parts = [differentiate(gradient, query, *pair, whole, is_causal=False) for pair in pairs]
    of_queries, of_keys, of_values = zip(*parts, strict=True)
    ours = (sum(of_queries), torch.cat(of_keys, dim=2), torch.cat(of_values, dim=2))
    torch.testing.assert_close(ours, wanted)


@SHARED
def test_a_causal_part_is_that_of_torch(shared: int) -> None:
    query, key, value = draw(HEADS), draw(shared), draw(shared)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shared != HEADS)
    gradient = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (query, key, value), gradient)
    with torch.no_grad():
        whole = mix(query, key, value, is_causal=True)
        torch.testing.assert_close(whole.values, expected)
        torch.testing.assert_close(differentiate(gradient, query, key, value, whole, is_causal=True), wanted)
    torch.testing.assert_close(attend(query, key, value, is_causal=True, enable_gqa=shared != HEADS), expected)


def test_some_queries_take_in_more_keys_and_the_others_stay_as_they_are() -> None:
    with torch.no_grad():
        query, first, second = draw(HEADS), draw(HEADS, 3), draw(HEADS, 5)
        whole = mix(query, first, first, is_causal=False).copied()
        before = Mixture(*(part.clone() for part in whole))
        late = slice(LENGTH // 2, LENGTH)
        whole.of(late).take_in(mix(query[:, :, late], second, second, is_causal=False))
        early = slice(LENGTH // 2)
        torch.testing.assert_close(whole.of(early), before.of(early), rtol=0, atol=0)
        expected = put_together(query[:, :, late], [(first, first), (second, second)])
        torch.testing.assert_close(whole.of(late), expected)
        assert not torch.allclose(whole.of(late).values, before.of(late).values)


def test_parts_in_16_bits_are_put_together_in_32() -> None:
    with torch.no_grad():
        query, key, value = (draw(HEADS, dtype=torch.bfloat16) for _ in range(3))
        halves = list(zip(key.chunk(2, dim=2), value.chunk(2, dim=2), strict=True))
        whole = put_together(query, halves)
        assert (whole.values.dtype, whole.log_sums.dtype) == (torch.float32, torch.float32)
        exact = scaled_dot_product_attention(query.double(), key.double(), value.double())
        torch.testing.assert_close(whole.values.double(), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@SHARED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cudas_kernels_put_parts_together_as_well(dtype: torch.dtype, shared: int) -> None:
    # Lengths that no kernel has for its tiles.
    exact = [
        torch.randn(BATCH, heads, 50, SIZE, dtype=torch.float64).requires_grad_() for heads in (HEADS, shared, shared)
    ]
    expected = scaled_dot_product_attention(*exact, enable_gqa=shared != HEADS)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, exact, weights)
    with torch.no_grad():
        query, key, value, gradient = (part.to("cuda", dtype) for part in (*exact, weights))
        pairs = list(zip(key.split([17, 33], dim=2), value.split([17, 33], dim=2), strict=True))
        whole = put_together(query, pairs)
        narrow = Mixture(whole.values.to(dtype), whole.log_sums)
        parts = [differentiate(gradient, query, *pair, narrow, is_causal=False) for pair in pairs]
    of_queries, of_keys, of_values = zip(*parts, strict=True)
    ours = (whole.values, sum(of_queries), torch.cat(of_keys, dim=2), torch.cat(of_values, dim=2))
    away = 1e-4 if dtype == torch.float32 else 5e-2
    for mine, theirs in zip(ours, (expected, *wanted), strict=True):
        torch.testing.assert_close(mine.double().cpu(), theirs, rtol=away, atol=away)
