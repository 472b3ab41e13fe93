"""A loss in chunks: that of whole logits, with its gradients, in less memory."""

import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from parbench.models.llama import Llama
from parbench.models.lstm import LSTM
from parbench.models.transformer import Transformer
from parbench.training.build import build_model
from parbench.training.loss import chunked_loss, next_token_loss

VOCABULARY, SEQUENCES, SEQ_LEN = 37, 3, 7
TOKENS = SEQUENCES * SEQ_LEN
FAMILIES = pytest.mark.parametrize(
    "family",
    [LSTM(layers=1, d_model=8), Transformer(layers=1, d_model=8, heads=2), Llama(layers=1, d_model=8, heads=2)],
    ids=lambda family: family.kind,
)


def build(family: Any, vocab_size: int = VOCABULARY) -> nn.Module:
    return build_model(family, vocab_size=vocab_size, seq_len=SEQ_LEN, seed="0/0")


def draw_tokens(vocab_size: int = VOCABULARY, sequences: int = SEQUENCES) -> tuple[Tensor, Tensor]:
    drawn = torch.randint(vocab_size, (2, sequences, SEQ_LEN), generator=torch.Generator().manual_seed(0))
    return drawn[0], drawn[1]


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor, chunks: int | None) -> Tensor:
    """From whole logits, or in chunks."""
    if chunks is None:
        return next_token_loss(model(inputs), targets)
    loss: Tensor = model(inputs, loss=partial(chunked_loss, targets=targets, chunks=chunks, loss=next_token_loss))
    return loss


def gradients(model: nn.Module, chunks: int | None, scale: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = loss_of(model, *draw_tokens(), chunks)
    (loss * scale).backward()
    return loss.detach(), {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@FAMILIES
@pytest.mark.parametrize("chunks", [1, 2, 4, TOKENS, 1000])
def test_loss_and_gradients_are_those_of_whole_logits(family: Any, chunks: int) -> None:
    model = build(family)
    expected, ours = gradients(model, None, scale=3.0), gradients(model, chunks, scale=3.0)
    torch.testing.assert_close(ours, expected)
    assert ours[1].keys() == dict(model.named_parameters()).keys()


@FAMILIES
def test_in_16_bits_they_are_as_close_to_fp32_as_with_whole_logits(family: Any) -> None:
    model = build(family)
    _, exact = gradients(model, None)
    model.autocast = torch.bfloat16
    loss, whole = gradients(model, None)
    loss_in_chunks, ours = gradients(model, 4)
    torch.testing.assert_close(loss_in_chunks, loss, rtol=1e-3, atol=1e-3)
    for name, gradient in exact.items():
        away, allowed = (float((each[name] - gradient).norm()) for each in (ours, whole))
        assert away <= 2 * allowed + 1e-6, name


def test_without_gradients_nothing_is_kept() -> None:
    model = build(Transformer(layers=1, d_model=8, heads=2))
    with torch.no_grad():
        whole, ours = (loss_of(model, *draw_tokens(), chunks) for chunks in (None, 4))
    torch.testing.assert_close(ours, whole)
    assert not ours.requires_grad


def test_what_is_frozen_gets_no_gradient() -> None:
    model = build(Transformer(layers=1, d_model=8, heads=2))
    model.head.requires_grad_(False)
    _, expected = gradients(model, None)
    _, ours = gradients(model, 4)
    torch.testing.assert_close(ours, expected)
    assert not any(name.startswith("head") for name in ours)


def test_the_head_sees_every_token_once_and_never_more_than_a_chunk() -> None:
    model = build(Transformer(layers=1, d_model=8, heads=2))
    seen: list[int] = []
    model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[:2].numel()))
    gradients(model, 4)
    assert seen == [6, 6, 6, 3]


class LiveBytes(TorchDispatchMode):
    """The bytes of what operations have made and somebody still holds: now, and the most at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._known:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        self._known[storage] = True
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.now -= size


def measure_peak(chunks: int | None, vocab_size: int, sequences: int, with_gradients: bool = True) -> int:
    model = build(Transformer(layers=1, d_model=8, heads=2), vocab_size)
    tokens = draw_tokens(vocab_size, sequences)
    with LiveBytes() as live, torch.set_grad_enabled(with_gradients):
        loss = loss_of(model, *tokens, chunks)
        if with_gradients:
            loss.backward()
    return live.peak


@pytest.mark.parametrize("with_gradients", [True, False])
def test_eight_chunks_need_less_memory_by_more_than_the_logits(with_gradients: bool) -> None:
    vocab_size, sequences = 2000, 64
    logits = 4 * vocab_size * sequences * SEQ_LEN
    whole, ours = (measure_peak(chunks, vocab_size, sequences, with_gradients) for chunks in (None, 8))
    assert whole > 2 * logits
    assert whole - ours > logits
