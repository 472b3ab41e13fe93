"""The operations that families count, beside those that torch counts where it sees them, and those counted by hand."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from parbench.models.base import Family
from parbench.models.llama import Llama
from parbench.models.lstm import LSTM
from parbench.models.moe import MixtureOfExperts
from parbench.models.transformer import Transformer
from parbench.training.build import build_model

FAMILIES = (
    LSTM(layers=1, d_model=8),
    LSTM(layers=3, d_model=24),
    Transformer(layers=1, d_model=48, heads=3),
    Transformer(layers=2, d_model=16, heads=4),
    Llama(layers=1, d_model=32, heads=4, mlp_width=80),
    Llama(layers=2, d_model=16, heads=4, key_value_heads=2),
    MixtureOfExperts(layers=1, d_model=16, heads=2, experts=4),
    MixtureOfExperts(layers=2, d_model=24, heads=2, experts=6, top_k=1, expert_width=20, shared_expert=True),
)
SIZES = ((2, 8, 40), (3, 16, 11))
"""Batch, sequence length and vocabulary."""


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Counts matrix products. CPUs' fused LSTM and attention are off, inside of which torch's counter sees none."""
    with (
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        yield counter


def of_a_batch(family: Family, batch: int, seq_len: int, vocab_size: int) -> float:
    """What the family counts of a forward pass."""
    work = family.work(vocab_size, seq_len)
    assert work is not None
    return batch * seq_len * (work.embed + family.n_blocks * work.block + work.head)


def without_gradient(family: Family, batch: int) -> float:
    """Operations of a backward pass that torch can leave out: nobody asks for the gradient of an LSTM's first state."""
    return family.n_blocks * batch * 8 * family.d_model**2 if isinstance(family, LSTM) else 0


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # what switching oneDNN off says of another switch
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.kind}-{family.layers}x{family.d_model}")
def test_the_counted_work_is_what_torch_counts_forward_and_twice_that_backward(
    family: Family, size: tuple[int, int, int]
) -> None:
    batch, seq_len, vocab_size = size
    model = build_model(family, vocab_size=vocab_size, seq_len=seq_len, seed="0")
    tokens = torch.arange(batch * seq_len).reshape(batch, seq_len) % vocab_size
    with counting() as forward:
        logits = model(tokens)
    with counting() as backward:
        logits.sum().backward()
    expected = of_a_batch(family, *size)
    assert forward.get_total_flops() == expected
    assert backward.get_total_flops() == 2 * expected - without_gradient(family, batch)


def test_an_lstm_by_hand() -> None:
    """Four gates of 3 rows, each over 3 inputs and 3 states; two operations a weight."""
    assert LSTM(layers=1, d_model=3).work(5, 7) == (0, 2 * 4 * 3 * (3 + 3), 2 * 3 * 5)


def test_a_gpt_by_hand() -> None:
    """Queries, keys and values, scores over all 3 positions, their mixture, output, and an MLP four times as wide."""
    block = 2 * 4 * 12 + 2 * 3 * 4 + 2 * 3 * 4 + 2 * 4 * 4 + 2 * 2 * 4 * 16
    assert Transformer(layers=1, d_model=4, heads=1).work(5, 3) == (0, block, 2 * 4 * 5)


def test_a_llama_by_hand() -> None:
    """As a GPT, with half as many keys and values and three matrices in the MLP."""
    block = 2 * 4 * (4 + 2 + 2) + 2 * 3 * 4 + 2 * 3 * 4 + 2 * 4 * 4 + 3 * 2 * 4 * 8
    llama = Llama(layers=1, d_model=4, heads=2, key_value_heads=1, mlp_width=8)
    assert llama.work(5, 3) == (0, block, 2 * 4 * 5)


def test_a_mixture_of_experts_by_hand() -> None:
    """As a GPT without its MLP, a router over five experts, and the two that a token goes through, of width 3."""
    attention = 2 * 4 * 12 + 2 * 3 * 4 + 2 * 3 * 4 + 2 * 4 * 4
    family = MixtureOfExperts(layers=1, d_model=4, heads=1, experts=5, top_k=2, expert_width=3)
    assert family.work(5, 3) == (0, attention + 2 * 4 * 5 + 2 * (2 * 2 * 4 * 3), 2 * 4 * 5)
    shared = family.model_copy(update={"shared_expert": True})
    assert shared.work(5, 3).block - family.work(5, 3).block == 2 * 2 * 4 * 3
    limited = family.model_copy(update={"capacity_factor": 0.5})
    assert limited.work(5, 3) == family.work(5, 3)


@pytest.mark.parametrize("family", [Transformer(d_model=16, heads=4), Llama(d_model=16, heads=4)], ids=["gpt", "llama"])
def test_attention_counts_every_position_as_if_it_were_not_causal(family: Family) -> None:
    shorter, longer = family.work(11, 10), family.work(11, 20)
    assert shorter is not None
    assert longer is not None
    assert longer.block - shorter.block == 4 * 10 * 16
