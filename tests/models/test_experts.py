"""A mixture of experts beside a plain loop over its experts, and how its tokens find room."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional

from parbench.models.moe import MixtureOfExperts
from parbench.models.nn.experts import ExpertLayer, Experts, Router
from parbench.models.nn.routing import Routes, fill_slots, measure_imbalance
from parbench.training.build import build_model
from parbench.training.loss import next_token_loss, whole_loss

WIDTH, EXPERTS, SEQUENCES, LENGTH, VOCABULARY = 8, 4, 3, 10, 13


def make_layer(top_k: int = 2, capacity_factor: float | None = None, *, shared: bool = False) -> ExpertLayer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        router, experts = Router(WIDTH, EXPERTS, top_k), Experts(EXPERTS, WIDTH, 12)
        return ExpertLayer(router, experts, nn.Linear(WIDTH, WIDTH) if shared else None, capacity_factor)


def draw_hidden(sequences: int = SEQUENCES) -> Tensor:
    return torch.randn(sequences, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))


def answer_of(experts: Experts, number: int, token: Tensor) -> Tensor:
    inner = functional.gelu(token @ experts.up[number] + experts.up_bias[number], approximate="tanh")
    return inner @ experts.down[number] + experts.down_bias[number]


def loop_over_experts(layer: ExpertLayer, hidden: Tensor, top_k: int, capacity: int | None) -> tuple[Tensor, int]:
    """Token by token, as it is defined; also how many choices find no room."""
    mixed, dropped = [], 0
    for sequence in hidden:
        taken = [0] * EXPERTS
        for token in sequence:
            probabilities = functional.softmax(layer.router.weight @ token, dim=0)
            chosen = probabilities.argsort(descending=True)[:top_k].tolist()
            gates = probabilities[chosen] if top_k == 1 else probabilities[chosen] / probabilities[chosen].sum()
            total = torch.zeros(WIDTH)
            for number, gate in zip(chosen, gates, strict=True):
                taken[number] += 1
                if capacity is None or taken[number] <= capacity:
                    total = total + gate * answer_of(layer.experts, number, token)
                else:
                    dropped += 1
            mixed.append(total if layer.shared is None else total + layer.shared(token))
    return torch.stack(mixed).view_as(hidden), dropped


def gradients(layer: ExpertLayer, hidden: Tensor, output: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), [hidden, *layer.parameters()]))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("top_k", [1, 2, EXPERTS])
@pytest.mark.parametrize("factor", [None, 0.5, 1.0, 1.25, float(EXPERTS)])
def test_it_computes_what_a_loop_over_experts_computes(factor: float | None, top_k: int, shared: bool) -> None:
    layer, hidden = make_layer(top_k, factor, shared=shared), draw_hidden().requires_grad_()
    capacity = None if factor is None else min(LENGTH, math.ceil(factor * top_k * LENGTH / EXPERTS))
    expected, dropped = loop_over_experts(layer, hidden, top_k, capacity)
    mixed = layer(hidden)
    torch.testing.assert_close(mixed.hidden, expected)
    torch.testing.assert_close(gradients(layer, hidden, mixed.hidden), gradients(layer, hidden, expected))
    assert dropped == (0 if mixed.is_kept is None else int((~mixed.is_kept).sum()))
    if factor in (None, 0.5, EXPERTS):
        assert (dropped > 0) == (factor == 0.5)


def test_nothing_is_dropped_outside_of_training() -> None:
    limited, free = make_layer(capacity_factor=0.5), make_layer()
    limited.eval()
    assert limited(draw_hidden()).is_kept is None
    assert torch.equal(limited(draw_hidden()).hidden, free(draw_hidden()).hidden)
    limited.train()
    assert not limited(draw_hidden()).is_kept.all()


@pytest.mark.parametrize("factor", [None, 1.0])
def test_a_batch_may_be_computed_in_any_parts(factor: float | None) -> None:
    layer, hidden = make_layer(capacity_factor=factor), draw_hidden(4)
    whole, parts = layer(hidden), [layer(part) for part in hidden.chunk(2)]
    torch.testing.assert_close(torch.cat([part.hidden for part in parts]), whole.hidden)
    mean = torch.stack([measure_imbalance(part.routes) for part in parts]).mean()
    torch.testing.assert_close(mean, measure_imbalance(whole.routes))


@pytest.mark.parametrize("factor", [None, 0.5])
def test_no_token_depends_on_later_ones(factor: float | None) -> None:
    layer, hidden = make_layer(capacity_factor=factor), draw_hidden()
    changed = hidden.clone()
    changed[:, 6:] = changed[:, 6:].flip(-1)
    before, after = layer(hidden).hidden, layer(changed).hidden
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_with_a_capacity_no_host_has_to_wait_for_values() -> None:
    """Fake tensors have none, so whoever reads one is found out."""
    with FakeTensorMode():
        loss_of(build(capacity_factor=1.25)).backward()
        with pytest.raises(DataDependentOutputException):
            loss_of(build())


def draw_tokens() -> Tensor:
    return torch.arange(SEQUENCES * LENGTH).square().remainder(VOCABULARY).view(SEQUENCES, LENGTH)


def loss_of(model: nn.Module) -> Tensor:
    tokens = draw_tokens()
    loss: Tensor = model(tokens, loss=partial(whole_loss, targets=tokens.roll(-1, 1), loss=next_token_loss))
    return loss


def build(**changes: Any) -> nn.Module:
    family = MixtureOfExperts(**{"layers": 2, "d_model": WIDTH, "heads": 2, "experts": EXPERTS, **changes})
    return build_model(family, vocab_size=VOCABULARY, seq_len=LENGTH, seed="0")


def test_balance_changes_gradients_and_not_the_loss_that_is_reported() -> None:
    without, with_it, tokens = build(balance=0.0), build(balance=0.5), draw_tokens()
    plain = next_token_loss(with_it(tokens), tokens.roll(-1, 1))
    losses = [loss_of(model) for model in (without, with_it)]
    assert losses[0] == losses[1] == plain
    for loss in losses:
        loss.backward()
    imbalance = []
    hooks = [
        block.mlp.register_forward_hook(lambda _, __, mixed: imbalance.append(measure_imbalance(mixed.routes)))
        for block in with_it.blocks.values()
    ]
    with_it(tokens)
    added = torch.autograd.grad(0.5 * torch.stack(imbalance).sum(), list(with_it.parameters()), allow_unused=True)
    assert len(hooks) == len(imbalance) == 2
    for (name, balanced), free, more in zip(with_it.named_parameters(), without.parameters(), added, strict=True):
        torch.testing.assert_close(balanced.grad, free.grad if more is None else free.grad + more, msg=name)
    assert any(more is not None and more.abs().max() > 1e-4 for more in added)


@pytest.mark.parametrize("factor", [None, 1.0])
def test_what_is_computed_again_gives_the_same_gradients(factor: float | None) -> None:
    kept, recomputed = build(capacity_factor=factor), build(capacity_factor=factor)
    recomputed.checkpoint_blocks(True)
    for model in (kept, recomputed):
        loss_of(model).backward()
    for one, other in zip(kept.parameters(), recomputed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def routes_of(chosen: Tensor, probabilities: Tensor) -> Routes:
    return Routes(probabilities, chosen, torch.ones(chosen.shape))


def test_imbalance_by_hand() -> None:
    """Of three experts, the first sequence's tokens choose 0 and 0, the second's 0 and 2."""
    probabilities = torch.tensor([[[0.6, 0.3, 0.1], [0.8, 0.1, 0.1]], [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]])
    first = 3 * (1.0 * 0.7)
    second = 3 * (0.5 * 0.3 + 0.5 * 0.475)
    routes = routes_of(torch.tensor([[[0], [0]], [[0], [2]]]), probabilities)
    torch.testing.assert_close(measure_imbalance(routes), torch.tensor((first + second) / 2))


def test_where_all_experts_are_alike_imbalance_is_one() -> None:
    routes = routes_of(torch.arange(4).view(1, 4, 1), torch.full((1, 4, 4), 0.25))
    assert measure_imbalance(routes) == 1


def test_slots_by_hand() -> None:
    """Of two experts with room for one token of each sequence, 0 is chosen by tokens 0, 1 and 3, and 1 by token 2."""
    routes = routes_of(torch.tensor([[[0], [0]], [[1], [0]]]), torch.zeros(2, 2, 2))
    slots = fill_slots(routes, capacity=1)
    assert slots.is_kept.tolist() == [True, False, True, True]
    # Expert 0's slots for both sequences, then expert 1's; nobody asks for the third.
    assert [slots.tokens[slot].item() for slot in (0, 1, 3)] == [0, 3, 2]
    assert [slots.answers[token].item() for token in (0, 2, 3)] == [0, 3, 1]


def test_one_expert_is_an_mlp() -> None:
    layer, hidden = make_layer(), draw_hidden()
    layer = ExpertLayer(Router(WIDTH, 1, 1), Experts(1, WIDTH, 12), None, None)
    torch.testing.assert_close(layer(hidden).hidden, answer_of(layer.experts, 0, hidden))


def test_in_16_bits_the_router_decides_in_32() -> None:
    layer, hidden = make_layer(), draw_hidden()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(hidden)
    assert torch.equal(mixed.routes.probabilities, layer(hidden).routes.probabilities)
    assert mixed.routes.probabilities.dtype == torch.float32
    torch.testing.assert_close(mixed.hidden, layer(hidden).hidden, rtol=0.05, atol=0.02)
    assert not torch.equal(mixed.hidden, layer(hidden).hidden)
