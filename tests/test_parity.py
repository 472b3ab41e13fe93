"""Every strategy computes what `single` computes, in real processes: families × devices × scaling × models."""

import json
from functools import cache
from pathlib import Path

import pytest

from parbench.cells import Cell, Plan, read_plan
from parbench.devices import Machine, allowed_cores
from parbench.launch.local import LocalLauncher
from parbench.results.figures import PARITY_TOLERANCE, job_losses, parity_deviation, validation_perplexity
from parbench.results.trial import PARITY_STEPS, Trial
from parbench.run import Task, measure
from parbench.strategies.base import STRATEGIES
from parbench.workloads.corpus import prepare

SCENARIO = Path(__file__).parent / "scenarios" / "parity.yaml"
VARIANTS = [{"model_parallel": {"schedule": ["naive", "gpipe"]}}]
# What the package's own files register; the tests of plug-ins register more in this process.
BUILT_IN = [name for name in STRATEGIES if STRATEGIES[name].__module__.startswith("parbench.")]


@cache
def plan() -> Plan:
    strategies = json.dumps([*BUILT_IN, *VARIANTS])
    return read_plan(SCENARIO, Machine(cores=allowed_cores()), [f"strategies={strategies}"])


def launch(task: Task, launcher: LocalLauncher, folder: Path) -> Trial:
    spec = plan().scenario.workloads[task.cell.record.workload]
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=folder)
    trial = measure(plan(), task, corpus, folder / task.folder_name, launcher, "here")
    assert trial.status == "ok", f"{trial.reason}\n{trial.log_tail}"
    return trial


@pytest.fixture(scope="module")
def references() -> dict[str, Trial]:
    return {}


@pytest.mark.parametrize("cell", plan().runnable, ids=lambda cell: cell.record.id)
def test_losses_match_the_reference(
    cell: Cell, references: dict[str, Trial], launcher: LocalLauncher, tmp_path: Path
) -> None:
    record = cell.record
    if record.reference not in references:
        task = Task(purpose="reference", cell=cell, key=record.reference, round=0, models=3)
        references[record.reference] = launch(task, launcher, tmp_path)
    trial = launch(
        Task(purpose="measure", cell=cell, key=record.key, round=0, models=record.models), launcher, tmp_path
    )

    losses = job_losses(trial)
    assert sorted(losses) == list(range(record.models))
    assert {len(steps) for steps in losses.values()} == {PARITY_STEPS}
    if record.exact:
        assert parity_deviation(trial, references[record.reference]) <= PARITY_TOLERANCE["fp32"]
    assert validation_perplexity(trial) == pytest.approx(64, rel=0.3), "untrained on uniform tokens"


def test_models_differ_from_each_other(launcher: LocalLauncher, tmp_path: Path) -> None:
    cell = next(cell for cell in plan().runnable if cell.record.is_reference and cell.record.models == 3)
    losses = job_losses(launch(Task(purpose="measure", cell=cell, key="k", round=0, models=3), launcher, tmp_path))
    assert len({tuple(steps) for steps in losses.values()}) == 3


def test_every_registered_strategy_is_tested_on_several_devices_unless_it_says_that_it_does_not_scale() -> None:
    tested = {(cell.record.strategy, cell.devices.count) for cell in plan().runnable}
    for name in BUILT_IN:
        assert {(name, count) for count in ((1, 2, 4) if STRATEGIES[name].scales else (1,))} - tested == (
            set() if name != "task_pool" else {("task_pool", 4)}  # three models do not fill a pool of four devices
        )
