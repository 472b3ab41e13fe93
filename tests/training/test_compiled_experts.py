"""Compiled blocks with experts, by the front end of torch's compiler alone: it sees the code that would be compiled."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from parbench.measure.probes.routing import count_routing
from parbench.models.moe import MixtureOfExperts
from parbench.models.nn.experts import Experts
from parbench.training.build import build_model
from parbench.training.loss import next_token_loss, whole_loss
from parbench.training.parallelize import parallelize

VOCABULARY, LENGTH = 13, 10


@pytest.fixture
def compile_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., nn.Module]]:
    """Builds a model with compiled parts, whose code runs as it is once it has been compiled."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    yield build
    torch._dynamo.reset()


def build(*, compiled: bool, **changes: Any) -> nn.Module:
    family = MixtureOfExperts(layers=2, d_model=8, heads=2, experts=4, **changes)
    made = partial(build_model, family, vocab_size=VOCABULARY, seq_len=LENGTH, seed="0/0")
    device = torch.device("cpu")
    return parallelize(
        lambda hook: made(on_part=hook), device=device, compiled=compiled, checkpointing=False, autocast=None
    )


def take_step(model: nn.Module, number: int) -> list[torch.Tensor]:
    """The loss of a batch that sends other tokens to other experts at each number, and the gradients."""
    tokens = torch.randint(VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(number))
    loss = model(tokens, loss=partial(whole_loss, targets=tokens.roll(-1, 1), loss=next_token_loss))
    return [loss, *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own code
@pytest.mark.parametrize("factor", [None, 1.0])
def test_no_other_tokens_compile_anew(compile_parts: Callable[..., nn.Module], factor: float | None) -> None:
    compiled, eager = (compile_parts(compiled=flag, capacity_factor=factor) for flag in (True, False))
    torch.testing.assert_close(take_step(compiled, 0), take_step(eager, 0))
    # Some versions of Python keep it out of compiled code by chance.
    assert all(module.run_rows._torchdynamo_disable for module in compiled.modules() if isinstance(module, Experts))
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    for number in range(1, 4):
        torch.testing.assert_close(take_step(compiled, number), take_step(eager, number))
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factor", [None, 1.0])
def test_choices_in_compiled_blocks_are_counted_too(
    compile_parts: Callable[..., nn.Module], factor: float | None
) -> None:
    compiled, eager = (compile_parts(compiled=flag, capacity_factor=factor) for flag in (True, False))
    take_step(compiled, 0)
    counted = count_routing(compiled, lambda: take_step(compiled, 1), compiled=True)
    assert counted == count_routing(eager, lambda: take_step(eager, 1), compiled=False)
    assert sum(map(sum, counted.choices)) == 2 * 3 * LENGTH * 2
