from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parbench.data.batches import Batches
from parbench.records.corpus import Corpus

# Hypothesis does not renew function-scoped fixtures; the token file of a size is the same in every example.
SHARED_FOLDER = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def counted(folder: Path, tokens: int) -> Corpus:
    """A corpus in which every token is its own position, so that a batch tells where it comes from."""
    path = folder / f"{tokens}.tokens"
    path.write_bytes(numpy.arange(tokens, dtype="<i4").tobytes())
    return Corpus(path=str(path), sha256="0" * 64, tokens=tokens, vocab_size=tokens, dtype="int32")


def batches(folder: Path, *, tokens: int = 401, seq_len: int = 4, global_batch: int = 6, seed: str = "0/0") -> Batches:
    return Batches(
        counted(folder, tokens), seq_len=seq_len, global_batch=global_batch, seed=seed, device=torch.device("cpu")
    )


def starts(batch) -> list[int]:
    """The positions at which a batch's sequences start."""
    return batch.inputs[:, 0].tolist()


@st.composite
def sizes(draw):
    seq_len = draw(st.integers(1, 9))
    shards = draw(st.integers(1, 6))
    return {
        "seq_len": seq_len,
        "tokens": draw(st.integers(2 * seq_len + 2, 300)),
        "global_batch": shards * draw(st.integers(1, 5)),
    }, shards


@given(sizes(), st.integers(0, 50))
@SHARED_FOLDER
def test_shards_in_order_are_the_global_batch(tmp_path, size, step):
    arguments, shards = size
    source = batches(tmp_path, **arguments)
    for split in (source.training, source.validation):
        whole = split(step)
        parts = [split(step, shard, shards) for shard in range(shards)]
        assert {part.inputs.shape for part in parts} == {(arguments["global_batch"] // shards, arguments["seq_len"])}
        assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
        assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


@given(sizes(), st.integers(0, 50))
@SHARED_FOLDER
def test_a_batch_is_sequences_of_the_corpus_and_its_targets_are_one_token_later(tmp_path, size, step):
    source = batches(tmp_path, **size[0])
    seq_len = size[0]["seq_len"]
    for batch in (source.training(step), source.validation(step)):
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert torch.equal(batch.inputs, batch.inputs[:, :1] + torch.arange(seq_len))
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert batch.inputs.is_contiguous()
        assert batch.targets.is_contiguous()


@given(sizes())
@SHARED_FOLDER
def test_what_validation_predicts_training_never_predicted(tmp_path, size):
    source = batches(tmp_path, **size[0])
    steps = range(300)
    trained = torch.cat([source.training(step).targets.flatten() for step in steps]).unique().tolist()
    validated = torch.cat([source.validation(step).targets.flatten() for step in steps]).unique().tolist()
    assert not set(trained) & set(validated)
    assert max(trained) < min(validated)
    seq_len, tokens = size[0]["seq_len"], size[0]["tokens"]
    assert len(trained) + len(validated) == (tokens - 1) // seq_len * seq_len


def test_an_epoch_visits_every_training_sequence_once(tmp_path):
    # 401 tokens are 100 sequences of 4 and the last target; 90 of them are for training: 15 batches of 6.
    source = batches(tmp_path)
    epochs = [[start for step in range(15) for start in starts(source.training(15 * epoch + step))] for epoch in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(0, 360, 4))
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_a_batch_may_span_two_epochs(tmp_path):
    spanning = batches(tmp_path, global_batch=8)
    found = [start for step in range(45) for start in starts(spanning.training(step))]
    assert [len(starts(spanning.training(step))) for step in range(45)] == [8] * 45
    for epoch in range(4):
        assert sorted(found[90 * epoch : 90 * (epoch + 1)]) == list(range(0, 360, 4))
    in_sixes = batches(tmp_path)
    assert found == [start for step in range(60) for start in starts(in_sixes.training(step))]


def test_a_batch_may_be_larger_than_several_epochs(tmp_path):
    found = starts(batches(tmp_path, tokens=13, global_batch=9).training(0))
    assert sorted(found) == [0, 0, 0, 0, 4, 4, 4, 4, found[-1]]


def test_the_last_tenth_is_for_validation_and_a_short_split_is_gone_through_again(tmp_path):
    source = batches(tmp_path)
    assert starts(source.validation(0)) == [360, 364, 368, 372, 376, 380]
    assert starts(source.validation(1)) == [384, 388, 392, 396, 360, 364]


def test_the_smallest_corpus_has_a_sequence_for_either_split(tmp_path):
    source = batches(tmp_path, tokens=10, global_batch=2)
    assert starts(source.training(7)) == [0, 0]
    assert starts(source.validation(7)) == [4, 4]


def test_the_order_is_decided_by_the_seed_and_by_nothing_else(tmp_path):
    def order(seed: str) -> list[list[int]]:
        source = batches(tmp_path, seed=seed)
        return [starts(source.training(step)) for step in range(20)]

    torch.manual_seed(1)
    first = order("0/0")
    torch.manual_seed(2)
    assert order("0/0") == first
    assert order("0/1") != first
    assert order("1/0") != first


def test_steps_may_be_asked_for_in_any_order(tmp_path):
    source, other = batches(tmp_path, global_batch=8), batches(tmp_path, global_batch=8)
    steps = range(60)
    forwards = {step: starts(source.training(step)) for step in steps}
    assert {step: starts(other.training(step)) for step in reversed(steps)} == forwards


def test_drawing_batches_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    batches(tmp_path).training(0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_either_type_of_token_becomes_a_whole_number(tmp_path, dtype):
    tokens = numpy.arange(200, dtype="<u1" if dtype == "uint8" else "<i4")
    path = tmp_path / "tokens"
    path.write_bytes(tokens.tobytes())
    corpus = Corpus(path=str(path), sha256="0" * 64, tokens=200, vocab_size=256, dtype=dtype)
    source = Batches(corpus, seq_len=199 // 2, global_batch=1, seed="0", device=torch.device("cpu"))
    assert source.validation(0).targets.tolist() == [list(range(100, 199))]
