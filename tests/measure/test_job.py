"""A pool in real processes: who takes which model, for how long, and what the average of all is worth."""

import json

import pytest

from parbench.measure.job import MIN_WINDOW_STEPS
from tests.conftest import CommandLine

SCENARIO = """
workloads:
  w:
    model: {kind: transformer, layers: 1, d_model: 16, heads: 2}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
    optimizer: {name: adam, lr: 1e-2}
    models: 5
    length_per_model: [1, 1, 4, 1, 2]
strategies:
  - single
  - task_pool: {aggregate: average}
  - task_pool: {tasks_per_device: 2}
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.5, validation_batches: 1, deadline_s: 600}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    parbench = CommandLine(tmp_path_factory.mktemp("pool"))
    (parbench.folder / "pool.yaml").write_text(SCENARIO)
    ended = parbench("run", "pool.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    lines = (parbench.folder / "out" / "trials.jsonl").read_text().splitlines()
    trials = [json.loads(line) for line in lines]
    return rows, {trial["cell"]: trial for trial in trials if trial["purpose"] == "measure"}


def jobs(trial):
    return {job["job"]: job for rank in trial["ranks"] for job in rank["jobs"]}


def test_every_model_is_trained_once_by_whoever_is_free(measured):
    _, trials = measured
    for trial in trials.values():
        taken = [job["job"] for rank in trial["ranks"] for job in rank["jobs"]]
        assert sorted(taken) == [0, 1, 2, 3, 4]


def test_the_longest_models_are_started_first(measured):
    _, trials = measured
    (pool,) = [trial for trial in trials.values() if "aggregate=average" in trial["cell"]]
    first = {rank["jobs"][0]["job"] for rank in pool["ranks"]}
    assert first == {2, 4}


def test_models_take_steps_in_proportion_to_their_lengths(measured):
    _, trials = measured
    for trial in trials.values():
        steps = {number: job["steps"] for number, job in jobs(trial).items()}
        assert steps[4] == pytest.approx(max(MIN_WINDOW_STEPS, steps[2] / 2), abs=1)
        assert steps[0] == steps[1] == steps[3] == pytest.approx(max(MIN_WINDOW_STEPS, steps[2] / 4), abs=1)


def test_lanes_share_a_device_where_tasks_do(measured):
    _, trials = measured
    (shared,) = [trial for trial in trials.values() if "tasks_per_device=2" in trial["cell"]]
    cores = [tuple(rank["cores"]) for rank in shared["ranks"]]
    assert len(cores) == 4
    assert cores[0] == cores[1]
    assert cores[2] == cores[3]


def test_makespan_and_models_per_hour_agree(measured):
    rows, _ = measured
    for row in rows:
        assert row["models_per_hour"] == pytest.approx(5 * 3600 / row["makespan_s"])
        # Where a slow machine takes few steps in the window, they tell too little.
        assert row["parity"] in ("reference", "ok", "undecided")


def test_the_average_of_all_models_is_validated(measured):
    rows, _ = measured
    averaged = {row["label"]: row["averaged_perplexity"] for row in rows}
    assert averaged["task_pool(aggregate=average)"] == pytest.approx(64, rel=0.3)
    assert averaged["single"] is None
