"""Experts on two ranks, in real processes: they answer what the same experts answer on one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from parbench.models.nn.experts import ExpertLayer, Experts, Router
from parbench.training.expert_exchange import ExpertGradients, SpreadExperts

RANKS, EXPERTS, WIDTH, LENGTH = 2, 4, 6, 5
FACTORS = [None, 0.5, 1.25]
BIASES = {"even": 0.0, "all to the first rank": 100.0, "all to the last rank": -100.0}


def make_layer(factor: float | None, bias: float) -> ExpertLayer:
    """A layer whose router prefers the first half of the experts by `bias`, or the other half."""
    torch.manual_seed(0)
    layer = ExpertLayer(Router(WIDTH, EXPERTS, 2), Experts(EXPERTS, WIDTH, 7), None, factor)
    with torch.no_grad():
        layer.router.weight[: EXPERTS // 2, 0] += bias
    return layer


def draw_hidden() -> Tensor:
    """A sequence for each rank; every token has the number to which the router's bias applies."""
    hidden = torch.randn(RANKS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))
    hidden[..., 0] = 1.0
    return hidden


def loss_of(layer: nn.Module, hidden: Tensor) -> Tensor:
    """The mean over sequences."""
    loss: Tensor = layer(hidden).hidden.square().mean()
    return loss


def compare(rank: int, store: str) -> None:
    """As one of two ranks, whose mean loss is that of all sequences on one."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store=distributed.FileStore(store, RANKS), rank=rank, world_size=RANKS)
    alone = [distributed.new_group([number]) for number in range(RANKS)][rank]
    for factor in FACTORS:
        for bias in BIASES.values():
            whole, spread, hidden = make_layer(factor, bias), make_layer(factor, bias), draw_hidden()
            spread.experts = SpreadExperts(spread.experts, distributed.group.WORLD)
            gradients = ExpertGradients(spread.experts.parameters(), alone, RANKS)
            loss_of(whole, hidden).backward()
            own = hidden[rank : rank + 1].clone().requires_grad_()
            loss_of(spread, own).backward()
            gradients.finish()
            expected = hidden.clone().requires_grad_()
            mixed = whole(expected)
            torch.testing.assert_close(spread(own).hidden, mixed.hidden[rank : rank + 1])
            (of_tokens,) = torch.autograd.grad(mixed.hidden.square().mean(), expected)
            torch.testing.assert_close(own.grad, RANKS * of_tokens[rank : rank + 1])
            for name, parameter in spread.experts.own.named_parameters():
                part = whole.experts.get_parameter(name).grad.chunk(RANKS)[rank]
                torch.testing.assert_close(parameter.grad, part)
    distributed.destroy_process_group()


def test_two_ranks_answer_what_one_answers_and_learn_the_same(tmp_path: Path) -> None:
    multiprocessing.spawn(compare, (str(tmp_path / "store"),), nprocs=RANKS)


@pytest.mark.parametrize("bias", [BIASES["all to the first rank"], BIASES["all to the last rank"]])
def test_a_biased_router_leaves_one_rank_without_tokens(bias: float) -> None:
    """As the comparison above needs it."""
    chosen = make_layer(None, bias)(draw_hidden()).routes.chosen
    assert ((chosen < EXPERTS // 2) == (bias > 0)).all()


def test_gradients_wait_for_the_last_part_of_a_step() -> None:
    parameter = nn.Parameter(torch.ones(2))

    class Alone:
        size = staticmethod(lambda: 1)

    gradients = ExpertGradients([parameter], Alone(), 4)  # type: ignore[arg-type]
    gradients.exchanging = False
    (parameter * 2).sum().backward()
    assert parameter.grad.tolist() == [2, 2]
    gradients.exchanging = True
    (parameter * 6).sum().backward()
    assert parameter.grad.tolist() == [2, 2], "the mean over ranks of both parts"
