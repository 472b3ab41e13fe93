"""Where routers send tokens, counted in a step."""

import pytest
import torch
from torch import nn

from parbench.measure.probes.routing import count_routing
from parbench.models.moe import MixtureOfExperts
from parbench.models.transformer import Transformer
from parbench.training.build import build_model

SEQUENCES, LENGTH, EXPERTS = 3, 8, 4


def build(family: Transformer) -> nn.Module:
    return build_model(family, vocab_size=11, seq_len=LENGTH, seed="0/0")


def moe(**changes) -> MixtureOfExperts:
    return MixtureOfExperts(layers=2, d_model=8, heads=2, experts=EXPERTS, **changes)


def tokens() -> torch.Tensor:
    return torch.arange(SEQUENCES * LENGTH).remainder(11).view(SEQUENCES, LENGTH)


@pytest.mark.parametrize("top_k", [1, 3])
def test_every_choice_of_every_layer_counts_once(top_k):
    model = build(moe(top_k=top_k))
    found = count_routing(model, lambda: model(tokens()), compiled=False)
    assert [sum(layer) for layer in found.choices] == [SEQUENCES * LENGTH * top_k] * 2
    assert {len(layer) for layer in found.choices} == {EXPERTS}
    assert found.dropped == 0


def test_choices_are_those_of_the_router():
    model, chosen = build(moe()), []
    hook = model.blocks["1"].mlp.router.register_forward_hook(lambda _, __, routes: chosen.append(routes.chosen))
    found = count_routing(model, lambda: model(tokens()), compiled=False)
    hook.remove()
    assert list(found.choices[1]) == torch.bincount(chosen[0].flatten(), minlength=EXPERTS).tolist()


def test_what_finds_no_room_is_dropped():
    """With room for one token of a sequence, an expert takes no more than one of each."""
    model = build(moe(top_k=1, capacity_factor=EXPERTS / LENGTH))
    found = count_routing(model, lambda: model(tokens()), compiled=False)
    assert found.dropped >= 2 * SEQUENCES * (LENGTH - EXPERTS)
    assert found.dropped < sum(map(sum, found.choices))


def test_nothing_counts_once_the_step_is_done():
    model = build(moe())
    first = count_routing(model, lambda: model(tokens()), compiled=False)
    model(tokens())
    assert count_routing(model, lambda: model(tokens()), compiled=False) == first


def test_also_where_nothing_has_gradients():
    model = build(moe())
    with torch.inference_mode():
        found = count_routing(model, lambda: model(tokens()), compiled=False)
    assert sum(map(sum, found.choices)) == 2 * 2 * SEQUENCES * LENGTH


def test_no_step_is_taken_of_a_model_without_experts():
    assert count_routing(build(Transformer(layers=1, d_model=8, heads=2)), pytest.fail, compiled=False) is None
