"""Phases score and generate: what is recorded of them, in real processes, and the figures formed of it."""

import json
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from parbench.figures import generation, several_models, speed, utilisation
from parbench.models.llama import Llama
from parbench.models.lstm import LSTM
from parbench.models.nn.cache import Place
from parbench.models.transformer import Transformer
from parbench.records.trial import GenerationRecord
from parbench.results import deviations
from parbench.training.build import build_model
from parbench.training.generation import StaticDecoder, decode_greedily, measure_closest_choices
from tests.conftest import CommandLine
from tests.support.records import cell, job, rank, trial

SCENARIO = """
workloads:
  w:
    model: {kind: transformer, layers: 2, d_model: 16, heads: 2}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 12
    new_tokens: 5
    global_batch: 8
    phase: generate
  s:
    model: {kind: lstm, layers: 2, d_model: 16}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 12
    global_batch: 8
    phase: score
strategies: [single, ddp, local_sgd]
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.1, validation_batches: 2, deadline_s: 600}
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    parbench = CommandLine(tmp_path_factory.mktemp("generation"))
    (parbench.folder / "s.yaml").write_text(SCENARIO)
    ended = parbench("run", "s.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(parbench("table", "out", "--format", "json").stdout)
    return {(row["workload"], row["strategy"]): row for row in found}


def test_generated_tokens_are_the_references(rows):
    assert rows["w", "ddp"]["parity"] == "ok"
    assert rows["w", "ddp"]["differing_sequences"] == 0


def test_times_of_generation_fit_together(rows):
    row = rows["w", "single"]
    assert 0 < row["time_per_output_token_p50_s"] <= row["time_per_output_token_p90_s"]
    assert row["time_per_output_token_p90_s"] <= row["time_per_output_token_p99_s"]
    assert row["prefill_tokens_per_s"] == pytest.approx(8 * 7 / row["time_to_first_token_s"])
    assert row["validation_perplexity"] is None


def test_scored_text_has_the_references_perplexity(rows):
    assert rows["s", "ddp"]["validation_perplexity"] == pytest.approx(rows["s", "single"]["validation_perplexity"])
    assert rows["s", "ddp"]["parity"] == "ok"


def test_a_strategy_that_only_trains_is_skipped_with_its_reason(rows):
    for workload, phase in (("w", "generate"), ("s", "score")):
        row = rows[workload, "local_sgd"]
        assert (row["status"], row["reason"]) == ("skipped", f"is for train, not for phase {phase}")


def test_the_closest_choice_is_that_of_decoding_token_by_token():
    family = Transformer(layers=2, d_model=16, heads=2)
    model = build_model(family, vocab_size=11, seq_len=12, seed="0/0")
    prompts, gaps = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(0)), []
    with torch.no_grad():
        tokens = decode_greedily(model, prompts, 5, lambda: None)
        for count in range(5):
            logits = model(torch.cat([prompts, tokens[:, :count]], dim=1))[:, -1]
            largest = logits.topk(2).values
            gaps.append(largest[:, 0] - largest[:, 1])
            assert torch.equal(logits.argmax(-1), tokens[:, count])
        closest = measure_closest_choices(model, prompts, tokens)
    torch.testing.assert_close(closest, torch.stack(gaps).amin(dim=0))


def generated(*sequences, shard=0, first=0.1, tokens=(0.01, 0.02, 0.03)):
    record = GenerationRecord(sequences=sequences, first_token_s=(first,), token_s=tokens)
    return rank(shard, shard=shard, jobs=(job(losses=(), generation=record),))


def test_sequences_of_shards_are_put_together_and_those_of_one_shard_counted_once():
    reference = trial(ranks=(generated("a", "b", "c", "d"),))
    sharded = trial(ranks=(generated("a", "b"), generated("c", "d", shard=1)))
    assert deviations.differing_sequences(sharded, reference) == 0
    same_shard = trial(ranks=(generated("a", "b", "c", "d"), generated("a", "b", "c", "d")))
    assert deviations.differing_sequences(same_shard, reference) == 0


def test_a_sequence_that_differs_or_lacks_is_counted():
    reference = trial(ranks=(generated("a", "b", "c"),))
    assert deviations.differing_sequences(trial(ranks=(generated("a", "x", "c"),)), reference) == 1
    assert deviations.differing_sequences(trial(ranks=(generated("a"),)), reference) == 2
    assert deviations.differing_sequences(trial(ranks=(rank(jobs=(job(),)),)), reference) == 3


def test_the_slowest_shard_says_when_all_prompts_were_taken_in():
    of = cell(phase="generate", new_tokens=4)
    of_two = trial(of, ranks=(generated("a", first=0.1), generated("b", shard=1, first=0.2)))
    assert generation.time_to_first_token_s(of_two) == 0.2
    assert generation.prefill_tokens_per_s(of_two, of) == pytest.approx(8 * 60 / 0.2)
    assert generation.decode_tokens_per_s(of_two, of) == pytest.approx(8 / 0.02)
    assert generation.time_per_output_token_s(of_two, 0.5) == pytest.approx(0.02)


def test_lanes_work_at_the_same_time_and_the_models_of_a_lane_do_not():
    of = cell(phase="generate", new_tokens=4, models=4)
    ours = generated("a", first=0.1).model_copy(update={"lane": 0})
    other = generated("a", first=0.1).model_copy(update={"lane": 1, "rank": 1})
    assert generation.prefill_tokens_per_s(trial(of, ranks=(ours,)), of) == pytest.approx(4800)
    two = trial(of, ranks=(ours, other))
    assert generation.prefill_tokens_per_s(two, of) == pytest.approx(9600)
    assert generation.decode_tokens_per_s(two, of) == pytest.approx(2 * 8 / 0.02)


def test_tokens_per_s_counts_new_tokens_only():
    of = cell(phase="generate", new_tokens=4)
    assert speed.tokens_per_s(trial(of), of) == pytest.approx(10 * 8 * 4 / 2)


def test_mfu_needs_a_known_peak_and_counted_work():
    of = cell(flops_per_token=1e6)
    assert utilisation.mfu(trial(of), of, 1e12) == pytest.approx(2560 * 1e6 / 1e12)
    assert utilisation.mfu(trial(of), of, None) is None
    assert utilisation.mfu(trial(), cell(), 1e12) is None
    generating = cell(flops_per_token=1e6, phase="generate", new_tokens=4)
    assert utilisation.mfu(trial(generating), generating, 1e12) is None


def test_mfu_is_over_the_peak_of_all_devices():
    of = cell("ddp", 2, flops_per_token=1e6)
    assert utilisation.mfu(trial(of), of, 1e10) == pytest.approx(0.128)


def test_the_bubble_is_the_time_that_ranks_wait_for_other_stages():
    ranks = (rank(0, jobs=(job(waiting_s=0.5),)), rank(1, jobs=(job(waiting_s=1.1),)))
    assert utilisation.bubble(trial(ranks=ranks)) == pytest.approx((0.25 + 0.55) / 2)
    assert utilisation.bubble(trial(ranks=(rank(jobs=(job(waiting_s=0.0),)),))) == 0.0
    assert utilisation.bubble(trial()) is None


def test_in_older_records_all_but_the_passes_is_bubble():
    ranks = (rank(0, jobs=(job(compute_s=1.5),)), rank(1, jobs=(job(compute_s=0.5),)))
    assert utilisation.bubble(trial(ranks=ranks)) == pytest.approx(0.5)


def test_stacked_models_share_a_window():
    ranks = (rank(jobs=(job(0, stacked=2), job(1, stacked=2))),)
    assert speed.tokens_per_s(trial(ranks=ranks), cell()) == pytest.approx(2 * 2560)


def test_the_makespan_is_from_the_first_start_to_the_last_stop():
    ranks = (rank(jobs=(job(started_s=5.0, stopped_s=7.0),)), rank(1, jobs=(job(1, started_s=6.0, stopped_s=9.0),)))
    of = cell(models=2)
    assert several_models.makespan_s(trial(of, ranks=ranks)) == pytest.approx(4)
    assert several_models.models_per_hour(trial(of, ranks=ranks), of) == pytest.approx(1800)
    assert math.isclose(speed.tokens_per_s(trial(of, ranks=ranks), of), 2 * 2560)


VOCABULARY, PROMPT, LENGTH = 61, 8, 40
FAMILIES = pytest.mark.parametrize(
    "family",
    [
        LSTM(layers=2, d_model=16),
        Transformer(layers=2, d_model=16, heads=2),
        Llama(layers=2, d_model=16, heads=4, key_value_heads=2),
    ],
    ids=lambda family: family.kind,
)


def draw_prompts(seed: int, length: int = PROMPT) -> torch.Tensor:
    return torch.randint(VOCABULARY, (3, length), generator=torch.Generator().manual_seed(seed))


@FAMILIES
def test_static_caches_give_the_logits_of_caches_that_grow(family):
    model = build_model(family, vocab_size=VOCABULARY, seq_len=LENGTH, seed="0/0")
    place, static = Place(LENGTH, torch.device("cpu")), []
    with torch.no_grad():
        for seed in range(2):  # caches still hold what came after earlier prompts
            prompts, growing = draw_prompts(seed), model.new_caches(LENGTH)
            model(prompts, growing, 0)
            static = static or [cache.static(place) for cache in growing]
            for own, cache in zip(static, growing, strict=True):
                own.take(cache)
            place.move_to(PROMPT)
            for position in range(PROMPT, LENGTH - 1):
                token = draw_prompts(100 * seed + position, 1)
                torch.testing.assert_close(model(token, static, place.start), model(token, growing, position))
                place.advance()


class Recording(TorchDispatchMode):
    """Operations with the very tensors that they read and made. A CUDA graph replays them so, and Python has no say."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "nothing can be read back in a capture"
        made = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        for function, args, kwargs, made in self.calls:
            again = function(*args, **kwargs)
            for place, value in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if place is not None and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


@FAMILIES
def test_a_step_that_is_recorded_once_chooses_every_token(family):
    model = build_model(family, vocab_size=VOCABULARY, seq_len=LENGTH, seed="0/0")
    decoder, recording, marks = StaticDecoder(model, LENGTH), None, []

    def take_step() -> None:
        nonlocal recording
        if recording is not None:
            recording.replay()
            return
        with Recording() as recording:
            decoder.step()

    with torch.no_grad():
        for seed in range(3):
            prompts = draw_prompts(seed)
            expected = decode_greedily(model, prompts, LENGTH - PROMPT, lambda: None)
            assert torch.equal(decoder.decode(prompts, lambda: marks.append(0), take_step), expected)
    assert len(marks) == 3 * (LENGTH - PROMPT)
