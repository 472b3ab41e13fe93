"""The search and its ranking: nothing that strategies refuse, nothing that does not fit, and nothing missing."""

import re
from pathlib import Path
from typing import Any

import pytest

from parbench.errors import UsageError
from parbench.plan.reading import read_scenario
from parbench.predict.clusters import Cluster, find_cluster
from parbench.predict.fitted import published_fit
from parbench.predict.page import predictions_page
from parbench.predict.ranking import Ranking, describe, rank
from parbench.predict.search import Search
from parbench.predict.table import predictions_table, rankings_data
from parbench.scenario.specs import WorkloadSpec
from parbench.system.devices import Devices

SCENARIO = """\
name: s
workloads:
  gpt:
    model: {kind: transformer, layers: 8, d_model: 1024, heads: 8, vocab_size: 32000}
    data: {source: synthetic, vocab_size: 32000}
    seq_len: 1024
    global_batch: 16
    precision: bf16
strategies: [hybrid]
"""


def workload(tmp_path: Path, text: str = SCENARIO) -> WorkloadSpec:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return next(iter(read_scenario(path).workloads.values()))


def cluster(devices: int = 8, **device: Any) -> Cluster:
    found = find_cluster("dgx-a100-80").with_devices(devices)
    return found.model_copy(update={"device": found.device.model_copy(update=device)})


def ranking(tmp_path: Path, text: str = SCENARIO, top: int = 20, **device: Any) -> Ranking:
    return rank("gpt", workload(tmp_path, text), cluster(**device), published_fit(), top)


def test_every_layout_uses_all_devices_and_the_whole_batch(tmp_path: Path):
    found = list(Search(workload(tmp_path), Devices(kind="cuda", count=8)).chunks())
    assert len(found) == 1
    columns = found[0]
    assert set(columns["data"] * columns["tensor"] * columns["pipeline"] * columns["context"]) == {8}
    assert set(columns["data"] * columns["micro_batch"] * columns["micro_batches"]) == {16}
    assert len({tuple(row) for row in zip(*columns.values(), strict=True)}) == len(columns["data"])
    assert {1, 2, 4, 8} == set(columns["tensor"]) == set(columns["pipeline"]) == set(columns["data"])
    assert {0, 1} == set(columns["recompute"]) == set(columns["zero"])


def test_what_strategies_refuse_is_left_out_and_counted(tmp_path: Path):
    search = Search(workload(tmp_path, SCENARIO.replace("heads: 8", "heads: 2")), Devices(kind="cuda", count=8))
    tensors = {each for columns in search.chunks() for each in columns["tensor"]}
    assert tensors == {1, 2}
    assert any("2 heads do not divide into 4" in reason for reason in search.refusals)


def test_long_sequences_are_cut_too(tmp_path: Path):
    long = SCENARIO.replace("seq_len: 1024", "seq_len: 32768")
    contexts = {
        each
        for columns in Search(workload(tmp_path, long), Devices(kind="cuda", count=8)).chunks()
        for each in columns["context"]
    }
    assert contexts == {1, 2, 4, 8}


def test_the_fastest_comes_first_and_the_rest_is_compared_with_it(tmp_path: Path):
    found = ranking(tmp_path).predictions
    speeds = [each.tokens_per_s for each in found]
    assert speeds == sorted(speeds, reverse=True)
    assert len(found) == 20
    assert found[0].tie
    ties = [each.tie for each in found]
    assert ties == sorted(ties, reverse=True)
    for each in found:
        assert each.low < each.tokens_per_s < each.high
        assert sum(each.shares.values()) == pytest.approx(1)
        assert sum(each.memory.values()) <= each.capacity
        assert each.step_s == pytest.approx(16 * 1024 / each.tokens_per_s)


def test_fewer_layouts_are_the_same_ones(tmp_path: Path):
    assert [each.words for each in ranking(tmp_path, top=3).predictions] == [
        each.words for each in ranking(tmp_path).predictions[:3]
    ]


def test_what_does_not_fit_is_not_ranked(tmp_path: Path):
    found = ranking(tmp_path, memory_gib=0.01)
    assert (found.predictions, found.fitting) == ([], 0)
    assert found.layouts > 0


def test_less_memory_leaves_fewer_layouts(tmp_path: Path):
    assert 0 < ranking(tmp_path, memory_gib=4.0).fitting < ranking(tmp_path).fitting


def test_other_models_and_phases_are_refused(tmp_path: Path):
    lstm = re.sub(r"model: .*", "model: {kind: lstm, layers: 2, d_model: 64}", SCENARIO)
    with pytest.raises(UsageError, match="blocks of Transformers"):
        ranking(tmp_path, lstm)
    with pytest.raises(UsageError, match="for phase train"):
        ranking(tmp_path, SCENARIO.replace("    precision", "    phase: score\n    precision"))


def test_a_layout_reads_as_words(tmp_path: Path):
    layout = {
        "data": 4,
        "tensor": 2,
        "pipeline": 2,
        "context": 1,
        "interleave": 2,
        "micro_batch": 1,
        "micro_batches": 8,
        "shards": 2,
        "zero": 0,
        "sequence_parallel": 1,
        "recompute": 1,
        "recompute_attention": 1,
    }
    assert describe(layout) == (
        "data 4 × pipeline 2 × tensor 2, 8 micro-batches of 1, interleaved 2, hsdp 2, sequence parallel, recompute all"
    )


def test_tables_and_pages_have_every_layout(tmp_path: Path):
    found = ranking(tmp_path, top=5)
    assert len(predictions_table([found])) == 5
    data = rankings_data([found])[0]
    assert (data["devices"], len(data["predictions"])) == (8, 5)
    page = predictions_page([found])
    assert page.count("<circle") == 5
    assert all(each.words in page for each in found.predictions)
