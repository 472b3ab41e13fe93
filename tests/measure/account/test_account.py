"""Accounts of real steps whose truth is known: somebody sleeps, and it must show where it belongs."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine

SLEPT_S = 0.06

SCENARIO = f"""
workloads:
  train:
    model: {{kind: transformer, layers: 2, d_model: 32, heads: 2}}
    data: {{source: synthetic, vocab_size: 64, tokens: 20000}}
    seq_len: 16
    global_batch: 8
strategies:
  - single
  - data_parallel
  - ddp
  - fsdp
  - tensor_parallel
  - context_parallel
  - model_parallel: {{schedule: gpipe, micro_batches: 4}}
  - model_parallel: {{schedule: naive}}
  - local_sgd: {{period: 4}}
  - task_pool
  - ensemble
  - delayed: {{where: rank, seconds: {SLEPT_S}}}
  - delayed: {{where: data, seconds: {SLEPT_S}}}
devices: {{kind: cpu, counts: [2], oversubscribe: true}}
measure: {{rounds: 1, warmup: 5, window_s: 0.001, validation_batches: 1, deadline_s: 600}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, foreign_package: Path) -> CommandLine:
    parbench = CommandLine(tmp_path_factory.mktemp("account"), packages=foreign_package)
    (parbench.folder / "s.yaml").write_text(SCENARIO)
    ended = parbench("run", "s.yaml", "--trace", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    return parbench


@pytest.fixture(scope="module")
def accounts(run: CommandLine) -> dict[str, list[dict[str, Any]]]:
    """The account of every rank, by the strategy's label."""
    return {label: [rank["account"] for rank in each] for label, each in ranks_of(run).items()}


def ranks_of(run: CommandLine) -> dict[str, list[dict[str, Any]]]:
    """The records of every rank, by the strategy's label."""
    lines = (run.folder / "out" / "trials.jsonl").read_text().splitlines()
    trials = [trial for trial in map(json.loads, lines) if trial["purpose"] == "measure"]
    return {trial["cell"].split("/")[1]: trial["ranks"] for trial in trials}


def test_every_rank_has_an_account_that_adds_up(accounts) -> None:
    assert len(accounts) == 13
    for label, ranks in accounts.items():
        for account in ranks:
            assert sum(account["parts"].values()) == pytest.approx(account["profiled_s"]), label
            assert account["parts"]["forward"] > 0, label
            assert account["parts"]["backward"] > 0, label
            assert account["parts"]["optimizer"] > 0, label
            ends = [end for _, _, end in account["timeline"]]
            assert ends == sorted(ends), label


def test_a_rank_that_sleeps_is_waited_for_by_the_other(accounts) -> None:
    label = next(label for label in accounts if "where=rank" in label)
    waiting, sleeping = (account["parts"] for account in accounts[label])
    assert waiting["communication"] >= 0.9 * SLEPT_S
    assert sleeping["unexplained"] >= SLEPT_S
    assert sleeping.get("communication", 0) < waiting["communication"]


def test_batches_that_come_late_are_waited_for(accounts) -> None:
    label = next(label for label in accounts if "where=data" in label)
    for account in accounts[label]:
        assert account["parts"]["data"] >= SLEPT_S


def test_stages_wait_for_each_other_and_nobody_else_has_a_bubble(accounts) -> None:
    for label, ranks in accounts.items():
        bubbles = [account["parts"].get("pipeline", 0) > 0 for account in ranks]
        assert bubbles == [label.startswith("model_parallel")] * len(ranks), label


def test_exchanges_are_counted_by_kind(accounts) -> None:
    kinds = {label: {each["name"] for each in ranks[0]["exchanges"]} for label, ranks in accounts.items()}
    assert kinds["ddp"] == {"all_reduce"}
    assert kinds["context_parallel"] == {"all_reduce", "send", "recv"}
    assert kinds["single"] == kinds["task_pool"] == kinds["ensemble"] == set()
    per_step = {each["name"]: each["calls"] for each in accounts["local_sgd"][0]["exchanges"]}
    assert per_step == {"all_reduce": 1 / 4}


def test_every_exchange_has_its_time_beside_the_bytes_that_were_counted(run: CommandLine) -> None:
    for label, ranks in ranks_of(run).items():
        for rank in ranks:
            exchanges, traffic = rank["account"]["exchanges"], rank["traffic"] or {"calls": 0, "given_bytes": 0}
            if label != "data_parallel":
                assert sum(each["calls"] for each in exchanges) == pytest.approx(traffic["calls"]), label
                assert sum(each["given_bytes"] for each in exchanges) == pytest.approx(traffic["given_bytes"]), label
            assert all(each["seconds"] > 0 and each["ranks"] == 2 for each in exchanges), label
    kinds = {each["name"] for each in ranks_of(run)["fsdp"][0]["account"]["exchanges"]}
    assert kinds == {"all_gather", "reduce_scatter"}


def test_the_table_shows_what_adds_up_to_a_whole_step(run: CommandLine, accounts) -> None:
    ended = run("table", "out", "--breakdown", "--format", "json")
    rows = json.loads(ended.stdout)
    rows = rows.get("rows", rows) if isinstance(rows, dict) else rows
    assert len(rows) == 13
    parts = ("forward", "loss", "backward", "optimizer", "other", "communication", "waiting", "pipeline", "data",
             "host", "unexplained")  # fmt: skip
    assert all(sum(row[part] for part in parts) == pytest.approx(1) for row in rows)
    waiting = {row["label"]: row["waiting"] for row in rows}
    slept = next(label for label in waiting if "where=rank" in label)
    step_s = sum(account["profiled_s"] for account in accounts[slept]) / 2
    assert 2 * waiting[slept] * step_s == pytest.approx(SLEPT_S, rel=0.5)
    assert waiting[slept] > waiting[next(label for label in waiting if "where=data" in label)]
    text = run("table", "out", "--breakdown").stdout
    assert "bubble" in text
    assert "unexpl." in text
    assert "prof." in text
    assert max(len(line) for line in text.splitlines() if " on 2" in line) <= 120


def test_traces_of_ranks_are_merged_from_where_they_met(run: CommandLine) -> None:
    ended = run("trace", "train/ddp/*", "out")
    assert ended.returncode == 0, ended.stderr
    events = json.loads(gzip.decompress((run.folder / ended.stdout.strip()).read_bytes()))["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    assert names == {rank: f"rank {rank} of train/ddp/2" for rank in (0, 1)}
    for rank in (0, 1):
        own = [event for event in events if event["pid"] == rank]
        steps = [event["ts"] for event in own if event.get("name") == "parbench::step"]
        assert len(steps) == 3
        assert min(steps) >= 0
        assert any(event.get("name") == "gloo:all_reduce" for event in own)


def test_no_steps_are_watched_where_nobody_asks(run: CommandLine) -> None:
    ended = run("run", "s.yaml", "--only", "train/single/*", "--set", "measure.account=false", "--out", "off")
    assert ended.returncode == 0, ended.stderr
    trials = [json.loads(line) for line in (run.folder / "off" / "trials.jsonl").read_text().splitlines()]
    assert {rank["account"] is None for trial in trials for rank in trial["ranks"]} == {True}
    assert "No cell has an account" in run("table", "off", "--breakdown").stdout
    ended = run("trace", "train/single/*", "off")
    assert ended.returncode == 2
    assert "has no trace of train/single/" in ended.stderr
    assert "--trace" in ended.stderr
    assert "its cells are" in run("trace", "nothing", "off").stderr
