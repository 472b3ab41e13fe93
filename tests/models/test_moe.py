"""The family `moe`: its sizes, what it refuses, and how its models come to be."""

import pytest
import torch
from pydantic import ValidationError

from parbench.errors import Unsupported
from parbench.models.moe import MixtureOfExperts
from parbench.models.nn.experts import Experts
from parbench.models.transformer import Transformer
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import STRATEGIES, Layout
from parbench.system.devices import Devices
from parbench.training.build import build_model
from parbench.training.generation import decode_greedily
from parbench.training.parallelize import cast_matrices

SEQ_LEN, VOCABULARY = 8, 11


def family(**changes) -> MixtureOfExperts:
    return MixtureOfExperts(**{"layers": 2, "d_model": 8, "heads": 2, "experts": 4, **changes})


def build(**changes):
    return build_model(family(**changes), vocab_size=VOCABULARY, seq_len=SEQ_LEN, seed="0/0")


def tokens() -> torch.Tensor:
    return torch.randint(VOCABULARY, (3, SEQ_LEN), generator=torch.Generator().manual_seed(0))


def layout(name: str, count: int, *, kind="cpu", phase="train", options=None, **changes) -> Layout:
    strategy, spec = STRATEGIES[name], WorkloadSpec(model=family(**changes), phase=phase)
    return strategy.layout(strategy.options_type(**(options or {})), spec, Devices(kind=kind, count=count))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"top_k": 5}, "top_k 5 is more than the 4 experts that there are"),
        ({"heads": 3}, "d_model 8 does not divide into 3 heads"),
        ({"capacity_factor": 0}, "greater than 0"),
        ({"balance": -0.1}, "greater than or equal to 0"),
    ],
)
def test_sizes_that_do_not_go_together_say_why(sizes, reason):
    with pytest.raises(ValidationError, match=reason):
        family(**sizes)


@pytest.mark.parametrize(
    ("name", "count", "reason"),
    [
        ("data_parallel", 2, "replicas hand back logits alone, and not what their blocks add to the loss"),
        ("model_parallel", 2, "stages of a pipeline hand on hidden states alone"),
        ("tensor_parallel", 2, "expert_parallel spreads its experts over devices"),
        ("context_parallel", 2, "routers of family moe balance over whole sequences"),
        ("ensemble", 1, "models of family moe have not been shown to run stacked"),
    ],
)
def test_strategies_that_cannot_train_it_say_why(name, count, reason):
    with pytest.raises(Unsupported, match=reason):
        layout(name, count)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "local_sgd", "task_pool", "expert_parallel"])
def test_strategies_with_whole_models_can_train_it(name):
    assert layout(name, 2).devices == 2


def test_replicas_in_one_process_can_score_with_it():
    assert layout("data_parallel", 2, phase="score").devices_per_process == 2


def test_a_graph_replays_only_what_has_a_capacity():
    graphs = {"kind": "cuda", "options": {"cuda_graphs": True}}
    assert layout("single", 1, capacity_factor=1.25, **graphs).processes == 1
    with pytest.raises(Unsupported, match="tokens are more or fewer in every step; set capacity_factor"):
        layout("single", 1, **graphs)
    with pytest.raises(Unsupported, match=r"tokens are more or fewer in every step$"):
        layout("single", 1, capacity_factor=1.25, phase="generate", **graphs)


def test_every_parameter_learns():
    model = build(shared_expert=True)
    model(tokens()).square().sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_a_logit_does_not_know_the_tokens_after_it():
    model, changed = build(capacity_factor=0.5), tokens()
    changed[:, 4:] = (changed[:, 4:] + 1) % VOCABULARY
    before, after = model(tokens()), model(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_tokens_that_are_generated_one_by_one_are_those_of_the_whole_text():
    model, prompts = build(capacity_factor=0.5).eval(), tokens()[:, :3]
    with torch.no_grad():
        generated = decode_greedily(model, prompts, SEQ_LEN - 3, lambda: None)
        logits = model(torch.cat([prompts, generated], dim=1))
    assert torch.equal(logits[:, 2:-1].argmax(dim=-1), generated)


def test_one_token_that_takes_another_way_moves_the_mean_loss_by_its_share():
    assert family().rounding_jump(1000) == pytest.approx(2e-3)
    assert family(top_k=4).rounding_jump(1000) == Transformer().rounding_jump(1000) == 0


def test_no_two_experts_start_alike():
    first, *others = build().blocks["0"].mlp.experts.up
    assert not any(torch.equal(first, other) for other in others)


def test_experts_are_cast_once_and_compute_what_autocast_computes():
    plain, cast = build().eval(), build().eval()
    for part in cast.modules():
        cast_matrices(part, torch.bfloat16)
    experts = [module for module in cast.modules() if isinstance(module, Experts)]
    assert {parameter.dtype for module in experts for parameter in module.parameters()} == {torch.bfloat16}
    assert cast.blocks["0"].mlp.router.weight.dtype == torch.float32
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain(tokens()), cast(tokens()))


def test_a_rank_keeps_the_experts_of_its_part():
    whole, part = build().blocks["0"].mlp.experts, build().blocks["0"].mlp.experts
    part.keep_part(1, 2)
    for name, parameter in part.named_parameters():
        assert torch.equal(parameter, whole.get_parameter(name)[2:])
