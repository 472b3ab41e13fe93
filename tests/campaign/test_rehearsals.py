"""Memory that is predicted before anything is launched, as a user asks for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from parbench.campaign import rehearsals
from parbench.campaign.rehearsals import predict_memory
from parbench.plan.cells import Plan
from parbench.plan.reading import read_plan
from parbench.records.prediction import RehearsalRecord
from parbench.system.devices import Machine
from tests.conftest import CommandLine

SCENARIO = """
workloads:
  gpt:
    model: {kind: transformer, layers: 3, d_model: 64, heads: 4}
    data: {source: synthetic, vocab_size: 4096, tokens: 20000}
    seq_len: 16
    global_batch: 8
strategies: [single, data_parallel, ddp, model_parallel]
devices: {kind: cpu, counts: [1, 2], oversubscribe: true}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return read_plan(tmp_path / "s.yaml", Machine(cores=((0,), (1,))))


@pytest.fixture
def predictions(plan: Plan) -> dict[str, RehearsalRecord]:
    return dict(predict_memory(plan))


def test_every_cell_to_measure_has_a_prediction_or_the_reason_why_not(plan: Plan, predictions) -> None:
    assert predictions.keys() == {cell.record.id for cell in plan.runnable}
    unavailable = {cell: record.unavailable for cell, record in predictions.items() if record.unavailable}
    assert list(unavailable) == ["gpt/data_parallel/2"]
    assert "one process drives several devices" in unavailable["gpt/data_parallel/2"]
    assert all(record.prediction for cell, record in predictions.items() if cell not in unavailable)


def test_of_two_stages_the_one_that_needs_more_counts(plan: Plan, predictions) -> None:
    peaks = {cell: record.prediction.peak for cell, record in predictions.items() if record.prediction}
    stages = [cell for cell in peaks if "model_parallel" in cell and cell.endswith("/2")]
    assert stages
    # The larger stage has the embedding or the head, each of 4096 × 64 numbers of four bytes, and Adam's two of each.
    assert all(4 * 3 * 4096 * 64 < peaks[cell] < peaks["gpt/single/1"] for cell in stages)


def test_a_process_that_ends_early_leaves_the_rest_without(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsals, "COMMAND", (sys.executable, "-c", "raise SystemExit('no torch here')"))
    reasons = {record.unavailable for record in predict_memory(plan).values()}
    assert reasons == {"the rehearsal ended with exit code 1: no torch here"}


def test_the_plan_shows_it_where_a_user_asks_and_imports_no_torch_otherwise(tmp_path: Path) -> None:
    parbench = CommandLine(tmp_path)
    (tmp_path / "s.yaml").write_text(SCENARIO)
    shown = parbench("plan", "s.yaml", "--memory", "--set", "strategies=[single, ddp]")
    assert shown.returncode == 0, shown.stderr
    assert "tensors/rank" in shown.stdout
    assert "MiB" in shown.stdout
    assert "rehearsal on fake tensors" in " ".join(shown.stdout.split())
    assert "tensors/rank" not in parbench("plan", "s.yaml").stdout
    check = "import sys; import parbench.campaign.rehearsals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
