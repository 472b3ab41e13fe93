"""What ranks say to each other, counted in real steps: by arithmetic where it is known beforehand."""

import json
from pathlib import Path

import pytest

from parbench.measure.probes.traffic import kind_of
from tests.conftest import CommandLine

SCENARIO = """
workloads:
  w:
    model: {kind: lstm, layers: 2, d_model: 16}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
strategies:
  - single
  - data_parallel
  - ddp
  - ddp: {communication_hook: fp16}
  - ddp: {shard_optimizer: true}
  - model_parallel: {schedule: gpipe, micro_batches: 4}
  - local_sgd: {period: 4}
  - local_sgd: {period: 100, warmup_steps: 9}
  - task_pool
  - fsdp
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 2, warmup: 5, window_s: 0.001, validation_batches: 1, deadline_s: 600}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parbench = CommandLine(tmp_path_factory.mktemp("traffic"))
    (parbench.folder / "s.yaml").write_text(SCENARIO)
    ended = parbench("run", "s.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    return parbench.folder / "out"


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, list[tuple[float, float] | None]]:
    """Calls and bytes of the first rank, by strategy and round."""
    return by_label(run)


def by_label(run: Path) -> dict[str, list[tuple[float, float] | None]]:
    found: dict[str, list[tuple[float, float] | None]] = {}
    for line in (run / "trials.jsonl").read_text().splitlines():
        trial = json.loads(line)
        traffic = trial["ranks"][0]["traffic"]
        counted = (traffic["calls"], traffic["given_bytes"]) if traffic else None
        if trial["purpose"] == "measure":
            found.setdefault(trial["cell"].split("/")[1], []).append(counted)
    return found


def parameters(width: int = 16, vocabulary: int = 64) -> int:
    """Embedding, two blocks (norm and LSTM with two biases), norm and head with a bias of the LSTM in the scenario."""
    block = 2 * width + 2 * (4 * width * width + 4 * width)
    return vocabulary * width + 2 * block + 2 * width + vocabulary * width + vocabulary


def test_gradients_are_handed_over_once_in_a_step(found) -> None:
    calls, given = found["ddp"][0]
    assert given == 4 * parameters()
    assert calls >= 1
    assert found["ddp(communication_hook=fp16)"][0][1] == 2 * parameters()


def test_updated_parameters_are_handed_over_in_one_piece_a_rank(found) -> None:
    calls, given = found["ddp"][0]
    assert found["ddp(shard_optimizer=True)"][0] == (calls + 2, given + 4 * parameters())


def test_stages_hand_over_every_micro_batch_in_both_directions(found) -> None:
    calls, given = found["model_parallel"][0]
    assert calls == 2 * 4
    assert given == 4 * 8 * 8 * 16


def test_averages_of_parameters_count_in_proportion_to_their_period(found) -> None:
    assert found["local_sgd(period=4)"][0] == (1 / 4, 4 * parameters() / 4)


def test_a_period_that_is_too_long_to_wait_for_is_not_counted(found) -> None:
    assert found["local_sgd(period=100, warmup_steps=9)"] == [None, None]


def test_a_window_has_its_share_of_averages_and_none_of_the_first_steps(run: Path) -> None:
    records = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    trials = [record for record in records if record["purpose"] == "measure"]
    jobs = {(each["cell"].split("/")[1], each["round"]): each["ranks"][0]["jobs"][0] for each in trials}
    assert {jobs["local_sgd(period=4)", number]["steps"] % 4 for number in range(2)} == {0}
    long = [jobs["local_sgd(period=100, warmup_steps=9)", number] for number in range(2)]
    assert {(job["warmup_steps"], job["steps"]) for job in long} == {(9, 100)}


def test_who_works_alone_says_nothing(found) -> None:
    assert [found[name][0] for name in ("single", "data_parallel", "task_pool")] == [None, None, None]


def test_every_launch_counts_the_same(found) -> None:
    assert all(each == first for first, *others in found.values() for each in others)


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("allreduce_", "all_reduce"),
        ("all_reduce_coalesced", "all_reduce"),
        ("_allgather_base_", "all_gather"),
        ("all_gather_into_tensor_out", "all_gather"),
        ("_reduce_scatter_base_", "reduce_scatter"),
        ("reduce_scatter_tensor", "reduce_scatter"),
        ("alltoall_base_", "all_to_all"),
        ("broadcast_", "broadcast"),
        ("send", "send"),
        ("recv_any_source_", "recv"),
        ("reduce_", "reduce"),
    ],
)
def test_operators_of_either_namespace_have_the_same_kinds(operator: str, kind: str) -> None:
    assert kind_of(operator) == kind
