"""What ranks hold in real steps, in real processes: to the byte what arithmetic by hand says."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine

SCENARIO = """
workloads:
  gpt:
    model: {kind: transformer, layers: 2, d_model: 16, heads: 4}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
  odd:
    model: {kind: lstm, layers: 2, d_model: 15}
    data: {source: synthetic, vocab_size: 63, tokens: 20000}
    seq_len: 8
    global_batch: 8
    optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  scored:
    model: {kind: transformer, layers: 2, d_model: 16, heads: 4}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
    phase: score
  again:
    model: {kind: transformer, layers: 2, d_model: 16, heads: 4}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
    activation_checkpointing: [full, selective, {every: 2}]
  shy:
    model: {kind: custom, build: "shy.py:build"}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
strategies:
  - single
  - data_parallel
  - ddp
  - ddp: {gradient_as_bucket_view: false}
  - ddp: {shard_optimizer: true}
  - fsdp
  - fsdp: {replicas: 2}
  - tensor_parallel
  - tensor_parallel: {sequence_parallel: true}
  - context_parallel
  - context_parallel: {method: ulysses}
  - model_parallel: {schedule: gpipe, micro_batches: 4}
  - local_sgd: {period: 2}
  - local_sgd: {period: 100}
  - ensemble: {models_per_device: 2}
  - hybrid: {pipeline: 2}
  - hybrid: {tensor: 2}
  - hybrid: {data: 2, data_parallel: fsdp}
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, validation_batches: 1, deadline_s: 600}
exclude:
  - {workload: odd, strategy: [data_parallel, local_sgd, hybrid, ensemble]}
  - {workload: scored, strategy: [local_sgd, hybrid, ensemble, model_parallel]}
  - {workload: [shy, again*], strategy: ['[!s]*']}
"""

SHY = """
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

class Shy(nn.Linear):
    def forward(self, tokens):
        if _get_current_dispatch_mode():
            raise NotImplementedError("somebody is watching")
        return super().forward(nn.functional.one_hot(tokens, self.in_features).float())

def build(*, vocab_size, seq_len):
    return Shy(vocab_size, vocab_size)
"""

Shapes = list[tuple[int, ...]]
Ranks = list[dict[str, Any]]


def gpt_parts(width: int = 16, rows: int = 64, length: int = 8) -> dict[str, Shapes]:
    """The shapes of a GPT's parameters by part; of a block, those that tensor parallelism splits apart."""
    norm: Shapes = [(width,), (width,)]
    return {
        "embed": [(rows, width), (length, width)],
        "whole": [*norm, *norm, (width,), (width,)],
        "split": [
            (3 * width, width),
            (3 * width,),
            (width, width),
            (4 * width, width),
            (4 * width,),
            (width, 4 * width),
        ],
        "norm": norm,
        "head": [(rows, width)],
    }


def lstm_shapes(width: int = 15, rows: int = 63, layers: int = 2) -> Shapes:
    block: Shapes = [(width,), (width,), (4 * width, width), (4 * width, width), (4 * width,), (4 * width,)]
    return [(rows, width), *block * layers, (width,), (width,), (rows, width), (rows,)]


def count(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes))


PARTS = gpt_parts()
BLOCK = PARTS["whole"] + PARTS["split"]
GPT = PARTS["embed"] + 2 * BLOCK + PARTS["norm"] + PARTS["head"]


def adam(shapes: Shapes) -> tuple[int, int, int]:
    """Bytes of parameters, gradients and Adam's state: two moments, and a count of four bytes for each parameter."""
    size = 4 * count(shapes)
    return size, size, 2 * size + 4 * len(shapes)


@pytest.fixture(scope="module")
def parbench(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    command = CommandLine(tmp_path_factory.mktemp("memory"))
    (command.folder / "s.yaml").write_text(SCENARIO)
    (command.folder / "shy.py").write_text(SHY)
    ended = command("run", "s.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    return command


@pytest.fixture(scope="module")
def found(parbench: CommandLine) -> dict[tuple[str, str], Ranks]:
    """The accounts of each cell's ranks, by workload and label."""
    return read_accounts(parbench.folder / "out")


def read_accounts(run: Path) -> dict[tuple[str, str], Ranks]:
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    return {
        tuple(trial["cell"].split("/")[:2]): [rank["memory_account"] for rank in trial["ranks"]]
        for trial in trials
        if trial["purpose"] == "measure" and trial["round"] == trial["repeat"] == 0
    }


def kept(account: dict[str, Any], kind: str = "largest") -> tuple[int, int, int]:
    return tuple(account[kind][part] for part in ("parameters", "gradients", "optimizer_state"))  # type: ignore[return-value]


REPLICAS = [
    "single",
    "ddp",
    "ddp(gradient_as_bucket_view=False)",
    "fsdp(replicas=2)",
    "local_sgd(period=2)",
    "context_parallel",
    "context_parallel(method=ulysses)",
]


@pytest.mark.parametrize("label", REPLICAS)
def test_replicas_hold_everything(found, label: str) -> None:
    for account in found["gpt", label]:
        assert kept(account) == adam(GPT)


def test_a_sharded_optimizer_has_all_state_once(found) -> None:
    ranks = [kept(account) for account in found["gpt", "ddp(shard_optimizer=True)"]]
    size, _, state = adam(GPT)
    assert [rank[:2] for rank in ranks] == [(size, size)] * 2
    assert sum(rank[2] for rank in ranks) == state
    # From the largest parameter down, each goes to the rank with the least: they differ by the smallest, at most.
    assert abs(ranks[0][2] - ranks[1][2]) <= 8 * 16 + 4 * len(GPT)


@pytest.mark.parametrize("label", ["fsdp", "hybrid(data=2, data_parallel=fsdp, pipeline=1, tensor=1)"])
def test_shards_of_even_rows_are_exactly_half(found, label: str) -> None:
    size, _, state = adam(GPT)
    for account in found["gpt", label]:
        assert kept(account) == (size // 2, size // 2, (state - 4 * len(GPT)) // 2 + 4 * len(GPT))


def test_shards_of_odd_rows_are_padded_and_the_optimizer_steps_the_rest(found) -> None:
    shapes = lstm_shapes()
    padded = [(-(-rows // 2), *others) for rows, *others in shapes]
    last = [(rows - -(-rows // 2), *others) for rows, *others in shapes]
    first, second = (kept(account) for account in found["odd", "fsdp"])
    assert first == (4 * count(padded), 4 * count(padded), 4 * count(padded))
    assert second == (4 * count(padded), 4 * count(padded), 4 * count(last))


@pytest.mark.parametrize(
    "label", ["tensor_parallel", "tensor_parallel(sequence_parallel=True)", "hybrid(tensor=2, data=1, pipeline=1)"]
)
def test_split_matrices_are_half_and_the_rest_is_whole(found, label: str) -> None:
    split = 2 * PARTS["split"] + PARTS["head"]
    size = 4 * (count(GPT) - count(split) // 2)
    for account in found["gpt", label]:
        assert kept(account) == (size, size, 2 * size + 4 * len(GPT))


@pytest.mark.parametrize("label", ["model_parallel", "hybrid(pipeline=2, data=1, tensor=1)"])
def test_stages_hold_their_blocks_and_ends(found, label: str) -> None:
    first, second = (kept(account) for account in found["gpt", label])
    assert first == adam(PARTS["embed"] + BLOCK)
    assert second == adam(BLOCK + PARTS["norm"] + PARTS["head"])


def test_the_replicas_of_an_emulated_rank_are_copies_of_parameters_alone(found) -> None:
    (account,) = found["gpt", "data_parallel"]
    size, gradients, state = adam(GPT)
    assert kept(account) == (2 * size, gradients, state)


def test_stacked_models_hold_as_many_times_as_much(found) -> None:
    for account in found["gpt", "ensemble"]:
        size, gradients, state = adam(GPT)
        assert kept(account) == (2 * size, 2 * gradients, 2 * (state - 4 * len(GPT)) + 4 * len(GPT))


def test_without_training_there_are_parameters_alone(found) -> None:
    for label in ("single", "ddp", "data_parallel"):
        for account in found["scored", label]:
            copies = 2 if label == "data_parallel" else 1
            assert kept(account) == (copies * 4 * count(GPT), 0, 0)
    for account in found["scored", "fsdp"]:
        assert kept(account) == (2 * count(GPT), 0, 0)


def test_every_strategy_holds_what_it_says_beforehand(found) -> None:
    accounts = [account for ranks in found.values() for account in ranks if account]
    assert len(accounts) > 30
    for account in accounts:
        assert kept(account) == kept(account, "expected")
    assert {kept(account, "whole") for account in found["gpt", "fsdp"]} == {adam(GPT)}


def test_a_cycle_that_is_too_long_to_wait_for_is_not_accounted_for(found) -> None:
    assert found["gpt", "local_sgd(period=100)"] == [None, None]


def test_a_model_that_cannot_be_watched_is_measured_all_the_same(found) -> None:
    assert found["shy", "single"] == [None]


def test_buckets_are_gradients_or_copies_of_them(found) -> None:
    for account in found["gpt", "ddp"]:
        assert account["largest"]["buffers"] == 0
    for account in found["gpt", "ddp(gradient_as_bucket_view=False)"]:
        assert account["largest"]["buffers"] == 4 * count(GPT)


def test_stages_receive_each_micro_batch_into_a_buffer_of_its_own(found) -> None:
    for account in found["gpt", "model_parallel"]:
        assert account["largest"]["buffers"] == 4 * 8 * 8 * 16


def test_gathered_parameters_are_for_communication(found) -> None:
    ends = PARTS["embed"] + PARTS["norm"] + PARTS["head"]
    for account in found["gpt", "fsdp"]:
        # Embedding and head stay gathered, while one block at least is.
        assert account["at_peak"]["buffers"] >= 4 * count(ends)
        assert account["largest"]["buffers"] >= 4 * count(ends + BLOCK)
    for label in ("single", "data_parallel", "ensemble"):
        assert found["gpt", label][0]["largest"]["buffers"] == 0


def test_activations_are_seen_in_all_threads(found) -> None:
    (single,), (replicas,) = found["gpt", "single"], found["gpt", "data_parallel"]
    logits = 4 * 8 * 8 * 64
    assert single["largest"]["activations"] > 2 * logits
    assert replicas["largest"]["activations"] >= single["largest"]["activations"]


def test_half_of_the_batch_makes_half_of_the_activations(found) -> None:
    (single,) = found["gpt", "single"]
    for account in found["gpt", "ddp"]:
        assert account["largest"]["activations"] == pytest.approx(single["largest"]["activations"] / 2, rel=0.05)


def test_the_process_has_grown_by_what_is_in_it(found) -> None:
    growths = [account["growth"] for ranks in found.values() for account in ranks if account]
    if not Path("/proc/self/status").exists():
        assert set(map(str, growths)) == {"None"}
        return
    assert all(set(growth) == {"setup", "warm_up", "window"} for growth in growths)
    assert all(growth["warm_up"] > 0 for growth in growths)


def test_the_table_says_what_ranks_hold_and_that_arithmetic_agrees(parbench: CommandLine) -> None:
    ended = parbench("table", "out", "--memory", "--wide")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("are to the byte what each strategy's arithmetic says") == 6
    (fsdp, *_) = (line for line in ended.stdout.splitlines() if line.startswith("fsdp on 2"))
    assert (fsdp.count("(1/2)"), fsdp.count("(50 %)")) == (2, 1)
    rows = json.loads(parbench("table", "out", "--memory", "--format", "json").stdout)
    stages = [row for row in rows if row["label"] == "hybrid(pipeline=2, data=1, tensor=1)"]
    assert [row["rank"] for row in stages] == [0, 1]
    for row in rows:
        parts = ("parameters", "optimizer_state", "gradients", "activations", "buffers", "rest")
        assert sum(row[part] for part in parts) == row["tensor_peak_bytes"]


def test_exports_of_the_table_have_the_parts(parbench: CommandLine) -> None:
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    ddp = next(row for row in rows if row["workload"] == "gpt" and row["label"] == "ddp")
    assert ddp["parameter_bytes"] == ddp["gradient_bytes"] == 4 * count(GPT)
    parts = ("parameter", "optimizer_state", "gradient", "activation", "buffer", "other_tensor")
    assert sum(ddp[f"{part}_bytes"] for part in parts) == ddp["tensor_peak_bytes"]


def test_activations_are_fewer_the_more_is_computed_again(found) -> None:
    variants = {
        "none": "gpt",
        **{kind: f"again(activation_checkpointing={kind})" for kind in ("full", "selective")},
        "every": "again(every=2)",
    }
    kept = {kind: found[name, "single"][0]["largest"]["activations"] for kind, name in variants.items()}
    assert kept["full"] < kept["every"] < kept["none"]
    assert kept["full"] < kept["selective"] < kept["none"]
