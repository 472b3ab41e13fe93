"""What is computed again in the backward pass: which blocks, which of their operations, and the same gradients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from parbench.models.base import Family
from parbench.models.checkpointing import Checkpointing, Every, is_checkpointed
from parbench.models.llama import Llama
from parbench.models.lstm import LSTM
from parbench.models.nn import checkpointing as running
from parbench.models.nn.checkpointing import KEPT
from parbench.models.nn.language_model import LanguageModel
from parbench.models.transformer import Transformer
from parbench.training.build import build_model
from tests.models.test_work import counting

BATCH, LENGTH, VOCABULARY = 3, 6, 11
FAMILIES = (
    LSTM(layers=4, d_model=8),
    Transformer(layers=4, d_model=16, heads=4),
    Llama(layers=4, d_model=16, heads=4, key_value_heads=2, mlp_width=40),
)
LAST_PRODUCT = {"lstm": 0, "transformer": 2 * 16 * 64, "llama": 2 * 16 * 40}
"""FLOPs per token of a block's last matrix product, where it is its last operation but an addition.

No gradient needs its result, so it is not computed again.
"""
PLANNED: dict[Checkpointing, float] = {True: 1, "offloaded": 1, Every(every=2): 1 / 2, "selective": 0}
"""Which share of the products in blocks is computed again."""
CASES = [
    (family, checkpointing)
    for family in FAMILIES
    for checkpointing in PLANNED
    if not (family.kind == "lstm" and checkpointing == "selective")
]

of_each_case = pytest.mark.parametrize(("family", "checkpointing"), CASES, ids=str)
of_each_transformer = pytest.mark.parametrize("family", FAMILIES[1:], ids=lambda family: family.kind)


def built(family: Family, checkpointing: Checkpointing, blocks: range | None = None) -> LanguageModel:
    model = build_model(family, vocab_size=VOCABULARY, seq_len=LENGTH, seed="0", blocks=blocks)
    assert isinstance(model, LanguageModel)
    model.checkpoint_blocks(checkpointing)
    return model


def train(model: LanguageModel) -> dict[str, Tensor | None]:
    """The gradients of a training step."""
    tokens = torch.arange(BATCH * LENGTH).reshape(BATCH, LENGTH) % VOCABULARY
    hidden = tokens if model.embed is not None else torch.rand(BATCH, LENGTH, 16, requires_grad=True)
    model(hidden).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("checkpointing", "blocks"),
    [
        (False, []),
        (True, [0, 1, 2, 3, 4, 5, 6]),
        ("selective", [0, 1, 2, 3, 4, 5, 6]),
        ("offloaded", [0, 1, 2, 3, 4, 5, 6]),
        (Every(every=2), [0, 2, 4, 6]),
        (Every(every=3), [0, 3, 6]),
    ],
    ids=str,
)
def test_which_blocks_compute_again(checkpointing: Checkpointing, blocks: list[int]) -> None:
    assert [block for block in range(7) if is_checkpointed(block, checkpointing)] == blocks


@of_each_case
def test_gradients_are_the_same_to_the_bit(family: Family, checkpointing: Checkpointing) -> None:
    kept, again = (train(built(family, each)) for each in (False, checkpointing))
    for name, gradient in kept.items():
        assert gradient is not None
        assert torch.equal(gradient, again[name]), name


def test_blocks_of_a_stage_are_chosen_by_their_number_in_the_whole_model() -> None:
    model, calls = built(FAMILIES[1], Every(every=2), range(1, 4)), Counter[str]()
    for number, block in model.blocks.items():
        block.register_forward_pre_hook(lambda *_, number=number: calls.update([number]))
    train(model)
    assert calls == {"1": 1, "2": 2, "3": 1}


def count_flops(family: Family, checkpointing: Checkpointing) -> int:
    model = built(family, checkpointing)
    with counting() as counter:
        train(model)
    return int(counter.get_total_flops())


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # what switching oneDNN off says of another switch
@of_each_case
def test_what_is_computed_again_is_as_many_products_as_planned(family: Family, checkpointing: Checkpointing) -> None:
    work = family.work(VOCABULARY, LENGTH)
    assert work is not None
    again = PLANNED[checkpointing] * family.n_blocks * BATCH * LENGTH * (work.block - LAST_PRODUCT[family.kind])
    assert count_flops(family, checkpointing) - count_flops(family, False) == again


class Operations(TorchDispatchMode):
    """Counts operations that are carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[Any]()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.counts[func] += 1
        return func(*args, **(kwargs or {}))


def count_products(family: Family, checkpointing: Checkpointing) -> dict[Any, int]:
    model = built(family, checkpointing)
    with Operations() as operations:
        train(model)
    return {operation: operations.counts[operation] for operation in KEPT}


@of_each_transformer
def test_fused_kernels_are_kept_as_well(family: Family) -> None:
    """Those that this machine has; others compute the same by products that are kept."""
    kept = count_products(family, False)
    assert count_products(family, "selective") == kept
    assert sum(count_products(family, True).values()) > sum(kept.values())


def test_without_gradients_nothing_is_kept_or_computed_again() -> None:
    model, calls = built(FAMILIES[1], True), []
    model.blocks["0"].register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    with torch.no_grad():
        model(torch.zeros(1, LENGTH, dtype=torch.int64))
    assert calls == [False]


def test_nothing_is_offloaded_but_what_goes_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(running, "save_on_cpu", lambda **_: saved_tensors_hooks(note, lambda tensor: tensor))
    train(built(FAMILIES[1], "offloaded"))
    assert shapes == 4 * [(BATCH, LENGTH, 16)]
