import hashlib
from itertools import pairwise

import pytest
import torch

from parbench.data.batches import stable_seed
from parbench.models.lstm import LSTM
from parbench.models.nn.language_model import LanguageModel
from parbench.models.transformer import Transformer
from parbench.training.build import build_model
from parbench.training.parallelize import cast_matrices

SEQ_LEN, VOCABULARY = 6, 11
FAMILIES = pytest.mark.parametrize(
    "family",
    [LSTM(layers=4, d_model=8), Transformer(layers=4, d_model=8, heads=2)],
    ids=lambda family: family.kind,
)


def model(family, blocks: range | None = None, seed: str = "0/0"):
    return build_model(family, vocab_size=VOCABULARY, seq_len=SEQ_LEN, seed=seed, blocks=blocks)


def tokens(sequences: int = 3) -> torch.Tensor:
    return torch.randint(VOCABULARY, (sequences, SEQ_LEN), generator=torch.Generator().manual_seed(0))


def test_a_block_that_is_computed_again_draws_the_same_random_numbers() -> None:
    """Of models that people bring: others draw none."""
    gradients = []
    for checkpointing in (False, True, "selective"):
        torch.manual_seed(0)
        embed, block, head = torch.nn.Embedding(11, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 11)
        dropping = torch.nn.Sequential(block, torch.nn.Dropout(0.5))
        whole = LanguageModel(embed, {0: dropping}, head, draws_random=True)
        whole.checkpoint_blocks(checkpointing)
        whole(tokens()).square().sum().backward()
        gradients.append(block.weight.grad)
    assert all(torch.equal(gradients[0], others) for others in gradients[1:])


@FAMILIES
@pytest.mark.parametrize("bounds", [(0, 4), (0, 2, 4), (0, 1, 4), (0, 1, 2, 3, 4)], ids=str)
def test_stages_built_alone_have_exactly_the_parameters_of_the_whole_model(family, bounds):
    whole = model(family).state_dict()
    stages = [model(family, range(start, stop)).state_dict() for start, stop in pairwise(bounds)]
    assert sorted(name for stage in stages for name in stage) == sorted(whole)
    for stage in stages:
        for name, value in stage.items():
            assert torch.equal(value, whole[name]), name


@FAMILIES
def test_stages_one_after_another_compute_what_the_whole_model_computes(family):
    hidden = tokens()
    for blocks in (range(1), range(1, 3), range(3, 4)):
        hidden = model(family, blocks)(hidden)
    assert torch.equal(hidden, model(family)(tokens()))


@FAMILIES
def test_only_the_ends_have_embedding_and_head(family):
    first, middle, last = (model(family, blocks) for blocks in (range(1), range(1, 3), range(3, 4)))
    assert (first.embed is not None, first.head is not None) == (True, False)
    assert (middle.embed is not None, middle.head is not None) == (False, False)
    assert (last.embed is not None, last.head is not None) == (False, True)
    assert list(middle.blocks) == ["1", "2"]
    assert middle(torch.zeros(3, SEQ_LEN, 8)).shape == (3, SEQ_LEN, 8)


@FAMILIES
def test_logits_are_a_number_for_each_token_of_the_vocabulary(family):
    assert model(family)(tokens(5)).shape == (5, SEQ_LEN, VOCABULARY)


@FAMILIES
def test_a_logit_does_not_know_the_tokens_after_it(family):
    whole, changed = model(family), tokens()
    changed[:, 4:] = (changed[:, 4:] + 1) % VOCABULARY
    before, after = whole(tokens()), whole(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


@FAMILIES
def test_a_logit_knows_the_tokens_before_it(family):
    whole, changed = model(family), tokens()
    changed[:, 0] = (changed[:, 0] + 1) % VOCABULARY
    difference = (whole(tokens()) - whole(changed)).abs().amax(dim=(0, 2))
    assert (difference > 0).all()


@FAMILIES
def test_values_are_decided_by_the_seed_and_by_nothing_else(family):
    def values(seed: str) -> torch.Tensor:
        return torch.cat([value.flatten() for value in model(family, seed=seed).parameters()])

    torch.manual_seed(1)
    first = values("0/0")
    torch.manual_seed(2)
    assert torch.equal(values("0/0"), first)
    assert not torch.equal(values("0/1"), first)


@FAMILIES
def test_no_two_blocks_start_alike(family):
    blocks = [torch.cat([value.flatten() for value in block.parameters()]) for block in model(family).blocks.values()]
    assert not any(torch.equal(one, other) for number, one in enumerate(blocks) for other in blocks[:number])


@FAMILIES
def test_building_leaves_the_global_generator_alone(family):
    before = torch.get_rng_state()
    model(family)
    assert torch.equal(torch.get_rng_state(), before)


@FAMILIES
def test_every_parameter_learns(family):
    whole = model(family)
    whole(tokens()).square().sum().backward()
    assert [name for name, value in whole.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("text", ["", "0/0", "0/0/embed", "ünï"])
def test_a_stable_seed_is_the_first_63_bits_of_sha256(text):
    assert stable_seed(text) == int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2


def test_a_stable_seed_never_changes():
    assert stable_seed("") == 0xE3B0C44298FC1C14 // 2


def test_matrices_are_cast_once_and_compute_what_autocast_computes():
    plain, cast = (model(Transformer(layers=2, d_model=8, heads=2)) for _ in range(2))
    for part in cast.modules():
        cast_matrices(part, torch.bfloat16)
    linear = [module for module in cast.modules() if isinstance(module, torch.nn.Linear)]
    assert {module.weight.dtype for module in linear} == {torch.bfloat16}
    assert cast.embed.token.weight.dtype == torch.float32
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain(tokens()), cast(tokens()))


def test_a_matrix_that_an_embedding_shares_is_not_cast():
    tied = torch.nn.Sequential(torch.nn.Embedding(11, 8), torch.nn.Linear(8, 11, bias=False))
    tied[1].weight = tied[0].weight
    cast_matrices(tied, torch.bfloat16)
    assert tied[0].weight.dtype == torch.float32
    assert tied[1].weight is tied[0].weight
