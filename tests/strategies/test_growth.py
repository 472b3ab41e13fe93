"""Rounding grows as long as one trains, and the tolerance with it: a fixed one would call right strategies wrong."""

from pathlib import Path

import pytest

from parbench.campaign.tasks import Origin, Task, measure
from parbench.data.corpus import prepare
from parbench.launch.local.launcher import LocalLauncher
from parbench.plan.cells import Cell, Plan
from parbench.plan.reading import read_plan
from parbench.records.assignment import Twin
from parbench.records.trial import Trial
from parbench.results.deviations import PARITY_TOLERANCE, compare, tolerances
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine

STEPS = 150
SCENARIO = """
workloads:
  gpt:
    model: {kind: transformer, layers: 2, d_model: 32, heads: 2}
    data: {source: python-stdlib}
    seq_len: 16
    global_batch: 16
    models: 1
    optimizer: {name: adam, lr: LR}
strategies: [ddp, model_parallel: {schedule: gpipe}]
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {deadline_s: 600}
"""


def planned(folder: Path, rate: str) -> Plan:
    (folder / "growth.yaml").write_text(SCENARIO.replace("LR", rate))
    return read_plan(folder / "growth.yaml", Machine(cores=allowed_cores()))


def launch(plan: Plan, task: Task, launcher: LocalLauncher, folder: Path) -> Trial:
    corpus = prepare(task.cell.workload.data, seq_len=task.cell.workload.seq_len, seed=0, folder=folder)
    trial = measure(plan, task, corpus, folder / task.folder_name, launcher, Origin("here"))
    assert trial.status == "ok", trial.reason
    return trial


def followed(plan: Plan, cell: Cell, launcher: LocalLauncher, folder: Path) -> Trial:
    task = Task(purpose="reference", cell=cell, key="r", models=1, steps=STEPS, twins=(Twin(kind="split"),))
    return launch(plan, task, launcher, folder)


@pytest.mark.parametrize(("rate", "amplified"), [("1e-3", False), ("3e-2", True)])
def test_right_strategies_stay_within_the_tolerance_for_many_steps(
    rate: str, amplified: bool, launcher: LocalLauncher, tmp_path: Path
) -> None:
    plan = planned(tmp_path, rate)
    reference = followed(plan, plan.runnable[0], launcher, tmp_path)
    assert (tolerances(reference, "fp32")[-1] > 100 * PARITY_TOLERANCE["fp32"]) == amplified
    for cell in plan.runnable:
        task = Task(purpose="proof", cell=cell, key=cell.record.key, models=1, steps=STEPS)
        deviation = compare(launch(plan, task, launcher, tmp_path), reference, "fp32")
        assert (deviation.first, deviation.steps) == (None, STEPS), (cell.record.id, deviation)
