"""Every optimizer under every strategy and schedule computes what it computes on one device, in real processes."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from parbench.campaign.tasks import Origin, Task, measure
from parbench.data.batches import Batch
from parbench.data.corpus import prepare
from parbench.launch.local.launcher import LocalLauncher
from parbench.plan.cells import Cell, Plan
from parbench.plan.reading import read_plan
from parbench.records.assignment import PARITY_STEPS
from parbench.records.trial import Trial
from parbench.results.deviations import PARITY_TOLERANCE, parity_deviation
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import STRATEGIES, Context
from parbench.strategies.model_parallel import Schedule
from parbench.strategies.single import Single, SingleOptions
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine
from parbench.training.workload import Workload

SCENARIO = Path(__file__).parents[1] / "scenarios" / "optimizers.yaml"
TOLERANCE = PARITY_TOLERANCE["fp32"]

ALL: list[object] = [
    {"ddp": {"shard_optimizer": True}},
    {"fsdp": {"reshard_after_forward": [True, False]}},
    {"tensor_parallel": {"sequence_parallel": [False, True]}},
    {"expert_parallel": {"replicas": [1, 2]}},
]
"""Where an optimizer steps something else than whole parameters: each meets every optimizer."""

THIRD: list[object] = [
    "ddp",
    "data_parallel",
    "task_pool",
    {"fsdp": {"replicas": 2}},
    {"ensemble": {"models_per_device": 2}},
    {"model_parallel": {"schedule": list(get_args(Schedule))}},
    {"hybrid": {"data": 2, "pipeline": 1, "tensor": 1, "data_parallel": ["ddp", "fsdp"]}},
    {"hybrid": {"data": 1, "pipeline": 2, "tensor": 1}},
    {"hybrid": {"data": 1, "pipeline": 1, "tensor": 2}},
    {"hybrid": {"data": 2, "pipeline": 2, "tensor": 1, "data_parallel": ["ddp", "fsdp"]}},
    {"hybrid": {"data": 2, "pipeline": 1, "tensor": 2, "data_parallel": ["ddp", "fsdp"], "sequence_parallel": True}},
    {"hybrid": {"data": 1, "pipeline": 2, "tensor": 2, "sequence_parallel": True}},
    {"context_parallel": {"method": ["ring", "ulysses"]}},
    {"hybrid": {"data": 2, "context": 2, "pipeline": 1, "tensor": 1, "data_parallel": ["ddp", "fsdp"]}},
    {"hybrid": {"data": 1, "context": 2, "pipeline": 1, "tensor": 2}},
]
"""Where its step is that of one device or of those above: each meets an SGD and an Adam, others than its neighbour."""


def read(strategies: list[object]) -> Plan:
    return read_plan(SCENARIO, Machine(cores=allowed_cores()), [f"strategies={json.dumps(strategies)}"])


def by_strategy(plan: Plan) -> list[list[Cell]]:
    """The cells of each strategy, one an optimizer, on the fewest devices that it takes."""
    cells: dict[str, list[Cell]] = {}
    for cell in plan.runnable:
        same = cells.setdefault(cell.record.label, [])
        if not same or cell.record.devices == same[0].record.devices:
            same.append(cell)
    return list(cells.values())


@cache
def plan() -> Plan:
    made = read(ALL)
    met = by_strategy(made) + [cells[number % 3 :: 3] for number, cells in enumerate(by_strategy(read(THIRD)))]
    return replace(made, cells=tuple(cell for cells in met for cell in cells))


def launch(task: Task, launcher: LocalLauncher, folder: Path) -> Trial:
    corpus = prepare(task.cell.workload.data, seq_len=task.cell.workload.seq_len, seed=0, folder=folder)
    trial = measure(plan(), task, corpus, folder / task.folder_name, launcher, Origin("here"))
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
        task = Task(purpose="reference", cell=cell, key=record.reference, round=0, models=8)
        references[record.reference] = launch(task, launcher, tmp_path)
    task = Task(purpose="measure", cell=cell, key=record.key, round=0, models=record.models)
    assert parity_deviation(launch(task, launcher, tmp_path), references[record.reference]) <= TOLERANCE


class HalvedGradients(Single):
    def accumulate(self, batch: Batch) -> Tensor:
        loss = self.loss(batch)
        (loss / 2).backward()
        return loss.detach()


class HalfOfTheBatch(Single):
    """As replicas that do not speak to each other."""

    def accumulate(self, batch: Batch) -> Tensor:
        self.loss(batch.parts(2)[0]).backward()
        with torch.no_grad():
            return self.loss(batch)


def losses(strategy: Single, workload: WorkloadSpec) -> Tensor:
    corpus = prepare(workload.data, seq_len=workload.seq_len, seed=0, folder=Path())
    model = Workload(workload, corpus, seed=0, device=torch.device("cpu"))
    strategy.setup(model, 0, Context(rank=0, ranks=1, devices=(model.device,), cores=((),), threads=1, group=None))
    return torch.stack([strategy.step(model.batches(0).training(index, 0, 1)) for index in range(PARITY_STEPS)])


WORKLOADS = {cell.record.workload: cell.workload for cell in plan().runnable}


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("wrong", [HalvedGradients, HalfOfTheBatch])
def test_a_wrong_gradient_is_far_beyond_the_tolerance(wrong: type[Single], name: str) -> None:
    """Of Adam's without weight decay only the direction counts: what halves it alike cannot be seen, by anyone."""
    workload = WORKLOADS[name]
    if wrong is HalvedGradients and workload.optimizer.name != "sgd":
        pytest.skip("Adam divides by the size of the gradients")
    right, twin = (losses(strategy(SingleOptions()), workload) for strategy in (Single, wrong))
    assert (right - twin).abs().max() > 10 * TOLERANCE
    assert right.diff().abs().max() < 1, "a rate at which rounding grows would prove nothing"


def test_every_strategy_is_tested_and_every_optimizer_with_whole_and_with_split_parameters() -> None:
    built_in = [cls for cls in map(STRATEGIES.__getitem__, STRATEGIES) if cls.__module__.startswith("parbench.")]
    records = [cell.record for cell in plan().runnable]
    assert {record.strategy for record in records} == {cls.name for cls in built_in if cls.exact and cls.scales}
    of_experts = {name for name in WORKLOADS if name.startswith("moe")}
    for strategy in ("model_parallel", "hybrid", "tensor_parallel"):
        assert {record.workload for record in records if record.strategy == strategy} == set(WORKLOADS) - of_experts
    assert {record.workload for record in records if record.strategy == "expert_parallel"} == of_experts
