"""The acceptance of a GPU, as far as it can be tried without one: its ledger, and its comparison, on CPU."""

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from parbench.plan.reading import read_plan
from parbench.system.devices import Machine, detect
from tests.gpu import acceptance, models
from tests.gpu.campaigns import REPOSITORY, SCENARIOS, Campaign, read, run_program
from tests.gpu.ledger import Bench, Claim, Ledger, Step
from tests.gpu.memory import is_near

ONE_GPU = Machine(cores=tuple((core,) for core in range(16)), gpus=1, compute_capability=(9, 0))


@pytest.mark.skipif(bool(detect().gpus), reason="there is a GPU")
def test_without_a_gpu_it_ends_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu.acceptance", "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "There is no GPU that the installed torch can use: run this on a machine with one.\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scenario", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scenario_can_be_planned_for_one_gpu(scenario: Path) -> None:
    plan = read_plan(scenario, ONE_GPU)
    assert plan.runnable
    assert {cell.record.device_kind for cell in plan.runnable} == {"cuda"}


def test_the_ledger_keeps_what_each_step_claims_and_goes_on_after_one_that_breaks(tmp_path: Path) -> None:
    def fine(_: Bench) -> Iterator[Claim]:
        yield Claim("one is one", holds=True, figures={"one": 1})

    def false(_: Bench) -> Iterator[Claim]:
        yield Claim("one is two", holds=False)

    def broken(_: Bench) -> Iterator[Claim]:
        yield Claim("so far so good", holds=True)
        raise ValueError("broken on purpose")

    bench = Bench(tmp_path, ends_at=time.monotonic() + 100)
    steps = [Step("broken", 1, broken), Step("false", 1, false), Step("long", 1000, fine), Step("fine", 1, fine)]
    assert not Ledger(bench).take(steps)
    written = json.loads((tmp_path / "acceptance.json").read_text())
    assert [(entry["name"], entry["state"]) for entry in written] == [
        ("broken", "broke"),
        ("false", "fails"),
        ("long", "skipped"),
        ("fine", "holds"),
    ]
    assert written[0]["claims"][0]["holds"]
    assert "broken on purpose" in written[0]["error"]
    assert written[3]["claims"][0]["figures"] == {"one": 1}
    assert Ledger(bench).take([Step("fine", 1, fine)])


def test_a_run_is_read_back_by_cell() -> None:
    campaign = read(REPOSITORY / "results/stored/lstm_scaling-cpu-2-cores")
    assert campaign.parity().holds
    assert campaign.figures("tokens_per_s").keys() == campaign.rows.keys()
    assert "lstm/ddp/2" in campaign.figures("speedup")
    assert campaign.figures("mfu") == campaign.figures("time_per_output_token_p50_s") == {}
    assert set(campaign.figures("models_per_hour")) <= set(campaign.rows)
    assert campaign.trials[0]["ranks"]


def test_eight_models_share_a_gpu_by_each_way() -> None:
    plan = read_plan(SCENARIOS / "eight_models.yaml", replace(ONE_GPU, no_mps=None))
    pools = [cell for cell in plan.runnable if cell.record.strategy == "task_pool"]
    shared = [(cell.record.family, cell.strategy.options) for cell in pools]
    ways = {(family, options.sharing, options.tasks_per_device) for family, options in shared}
    by_time = {(family, "time", tasks) for family in ("transformer", "lstm") for tasks in (1, 2, 4, 8)}
    others = {("transformer", sharing, tasks) for sharing in ("mps", "streams") for tasks in (2, 4, 8)}
    assert ways == by_time | others | {("lstm", "mps", 8), ("lstm", "streams", 8)}


@pytest.mark.parametrize(
    ("mps", "warnings", "clients", "guests"),
    [
        ({"time": False, "mps": True}, [], True, True),
        ({"time": True, "mps": True}, [], False, True),
        ({"time": False, "mps": False}, [], False, True),
        ({"time": False, "mps": None}, [], False, True),
        ({}, [], False, True),
        ({"time": False, "mps": True}, ["1 other process computed on GPU-1 of rank 0"], True, False),
    ],
)
def test_it_is_seen_who_goes_through_mps_and_who_is_taken_for_a_guest(
    mps: dict[str, bool | None], warnings: list[str], clients: bool, guests: bool
) -> None:
    trials = [
        {
            "cell": f"small/task_pool(sharing={sharing})/1",
            "purpose": "measure",
            "status": "ok",
            "warnings": warnings,
            "ranks": [{"surroundings": {"gpus": [{"mps": served}]}}],
        }
        for sharing, served in mps.items()
    ]
    campaign = Campaign(Path(), {}, trials)
    assert (models.find_clients(campaign).holds, models.find_guests(campaign).holds) == (clients, guests)


def test_a_step_that_claims_nothing_fails(tmp_path: Path) -> None:
    assert not Ledger(Bench(tmp_path, time.monotonic() + 100)).take([Step("empty", 1, lambda _: ())])


def test_all_steps_fit_into_the_budget() -> None:
    assert sum(step.needs_s for step in acceptance.STEPS) + acceptance.REPORT_S <= 520


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, ends_at=time.monotonic() + 3600)


def test_every_strategy_computes_the_same_in_a_world_of_one_on_cpu(bench: Bench, tmp_path: Path) -> None:
    # Most CPUs compute in fp16 by detours that take minutes.
    scenario = tmp_path / "parity.yaml"
    scenario.write_text(re.sub(r"precision: .*", "precision: fp32", (SCENARIOS / "parity.yaml").read_text()))
    cells, errors = run_program(bench, "world_of_one", scenario, "--kind", "cpu")
    assert errors == ""
    assert {name: cell for name, cell in cells.items() if not cell["ok"]} == {}
    assert {"lstm", "gpt", "llama", "again"} == {name.partition("/")[0].partition("(")[0] for name in cells}
    assert all(len(cell["losses"]) == 5 for cell in cells.values())
    assert sum("deviation" in cell for cell in cells.values()) > len(cells) / 2


SMALL = """
workloads:
  gpt:
    model: {kind: transformer, layers: 2, d_model: 64, heads: 2}
    data: {source: synthetic, vocab_size: 256, tokens: 20000}
    seq_len: 16
    global_batch: 4
    models: 1
    optimizer: {name: adamw, lr: 3e-4}
    precision: bf16
strategies: [single, ddp, fsdp]
devices: {kind: cpu, counts: [1]}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_a_step_and_one_by_hand_take_turns_on_the_same_model(bench: Bench, small: Path) -> None:
    duel, errors = run_program(bench, "duel", small, "--kind", "cpu")
    assert errors == ""
    assert len(duel["ours_s"]) == len(duel["bare_s"]) == 12
    assert min(duel["ours_s"] + duel["bare_s"]) > 0
    assert len(set(duel["parameters"])) == 1
    assert duel["first_losses"] == pytest.approx([math.log(256)] * 2, abs=0.5)
    assert duel["ratio"] > 0
    assert duel["share_of_matmul_flops"] > 0


def test_memory_is_measured_and_predicted_in_one_go(bench: Bench, small: Path) -> None:
    cells, errors = run_program(bench, "memory_of_one", small, "--kind", "cpu")
    assert errors == ""
    assert cells.keys() == {"gpt/single/1", "gpt/ddp/1", "gpt/fsdp/1"}
    assert {cell["allocated"] for cell in cells.values()} == {None}
    assert all(cell["predicted"] == sum(cell["at_peak"].values()) > 0 for cell in cells.values())


@pytest.mark.parametrize(
    ("allocated", "predicted", "near"),
    [(10**9, 10**9, True), (10**9, 10**9 + 134 * 10**6, True), (10**9, 10**9 - 136 * 10**6, False), (None, 1, False)],
)
def test_how_near_a_prediction_must_be(allocated: int | None, predicted: int, near: bool) -> None:
    assert is_near({"allocated": allocated, "predicted": predicted}) is near


def test_a_program_that_fails_says_why(bench: Bench, tmp_path: Path) -> None:
    results, errors = run_program(bench, "memory_of_one", tmp_path / "missing.yaml", "--kind", "cpu")
    assert results == {}
    assert "missing.yaml" in errors


def test_a_part_of_the_time_that_is_left(bench: Bench) -> None:
    part = bench.until_a_part_is_over(3)
    assert part.out == bench.out
    assert 0 < part.left_s <= bench.left_s / 2


def test_a_run_that_was_interrupted_need_not_know_every_reference() -> None:
    row = {"status": "ok", "parity": "undecided", "reason": None}
    campaign = Campaign(Path(), {"cell": row}, [])
    assert campaign.parity(interrupted=True).holds
    assert not campaign.parity().holds
    wrong = Campaign(Path(), {"cell": {**row, "parity": "failed"}}, [])
    assert not wrong.parity(interrupted=True).holds
