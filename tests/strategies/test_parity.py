"""Every strategy computes what `single` computes, in real processes, for every family, phase and axis."""

import json
from collections.abc import Hashable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from parbench.campaign.tasks import Origin, Task, measure
from parbench.data.corpus import prepare
from parbench.figures.losses import job_losses, validation_perplexity
from parbench.figures.speed import job_steps
from parbench.launch.local.launcher import LocalLauncher
from parbench.models.checkpointing import Checkpointing, Every
from parbench.plan.cells import Cell, Plan
from parbench.plan.reading import read_plan
from parbench.records.assignment import PARITY_STEPS
from parbench.records.trial import Trial
from parbench.results.deviations import compare, differing_sequences
from parbench.strategies.base import STRATEGIES
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine
from tests.support.pairwise import pairwise

REFERENCE_STEPS = 32
"""As far as any trial here goes: a window of local_sgd is a whole period."""
SCENARIO = Path(__file__).parents[1] / "scenarios" / "parity.yaml"
VARIANTS: list[dict[str, dict[str, object]]] = [
    {"model_parallel": {"schedule": ["naive", "gpipe"]}},
    {"model_parallel": {"schedule": ["interleaved_1f1b", "interleaved_zero_bubble", "zbv"]}},
    {"model_parallel": {"schedule": "dualpipev", "micro_batches": 8}},
    {"ddp": {"shard_optimizer": True}},
    {"ddp": {"communication_hook": "fp16"}},
    {"ddp": {"communication_hook": "powersgd"}},
    {"ddp": {"static_graph": True}},
    {"ddp": {"bucket_cap_mb": 0.001, "gradient_as_bucket_view": False}},
    {"fsdp": {"reshard_after_forward": False}},
    {"fsdp": {"param_dtype": "bf16"}},
    {"fsdp": {"replicas": [2, 4]}},
    {"tensor_parallel": {"sequence_parallel": True}},
    {"context_parallel": {"method": "ulysses"}},
    {"hybrid": {"data_parallel": "fsdp"}},
    {"hybrid": {"data": 1, "pipeline": 2, "tensor": 1, "schedule": "zbv", "data_parallel": "fsdp"}},
    {"hybrid": {"data": 2, "pipeline": 2, "schedule": "interleaved_1f1b", "data_parallel": "fsdp"}},
    {"hybrid": {"pipeline": 2, "tensor": 2, "schedule": "zbv", "sequence_parallel": True}},
    {"hybrid": {"data": 2, "context": 2, "pipeline": 1, "tensor": 1}},
    {
        "hybrid": {
            "data": 1,
            "context": 2,
            "pipeline": 1,
            "tensor": 2,
            "context_method": "ulysses",
            "sequence_parallel": True,
        }
    },
    {"hybrid": {"data": 1, "context": 4, "pipeline": 1, "tensor": 1, "data_parallel": "fsdp"}},
    {"task_pool": {"tasks_per_device": 2, "aggregate": "average"}},
    {"expert_parallel": {"replicas": 2}},
]
SMALL_MESHES = {
    f"hybrid(data={d}, pipeline={p}, tensor={t})" for d, p, t in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)]
}
EXPERTS = ("moe", "moe_with_capacity")
PLAIN = ("lstm(models=1)", "transformer(models=1)")
# Plug-ins that happen to be installed here have tests of their own.
BUILT_IN = [name for name in STRATEGIES if STRATEGIES[name].__module__.startswith("parbench.")]


@cache
def plan() -> Plan:
    strategies = json.dumps([*BUILT_IN, *VARIANTS])
    made = read_plan(SCENARIO, Machine(cores=allowed_cores()), [f"strategies={strategies}"])
    return replace(made, cells=tuple(cell for cell in made.cells if is_worth_a_test(cell)))


def is_worth_a_test(cell: Cell) -> bool:
    """Variants of a strategy's options on plain workloads only: phases and axes do not know them."""
    record = cell.record
    variant = "(" in record.label and record.label not in SMALL_MESHES
    plain = EXPERTS if record.strategy == "expert_parallel" else PLAIN
    return not variant or (record.workload in plain and record.scaling == "strong" and record.devices > 1)


def launch(task: Task, launcher: LocalLauncher, folder: Path) -> Trial:
    spec = plan().scenario.workloads[task.cell.record.workload]
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=folder)
    trial = measure(plan(), task, corpus, folder / task.folder_name, launcher, Origin("here"))
    assert trial.status == "ok", f"{trial.reason}\n{trial.log_tail}"
    return trial


@pytest.fixture(scope="module")
def references() -> dict[str, Trial]:
    return {}


def axes(cell: Cell) -> tuple[Hashable, ...]:
    record, spec = cell.record, cell.workload
    memory = (spec.gradient_accumulation, spec.activation_checkpointing, spec.loss_chunks)
    # A variant of a strategy's options is a value of its own.
    place = (record.strategy, record.label, record.devices, record.scaling, record.models)
    family = (record.family, getattr(spec.model, "capacity_factor", None))
    return (family, record.phase, record.precision, *memory, *place)


CELLS = pairwise(plan().runnable, axes)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.record.id)
def test_losses_match_the_reference(
    cell: Cell, references: dict[str, Trial], launcher: LocalLauncher, tmp_path: Path
) -> None:
    record = cell.record
    if record.reference not in references:
        task = Task(purpose="reference", cell=cell, key=record.reference, models=8, steps=REFERENCE_STEPS)
        references[record.reference] = launch(task, launcher, tmp_path)
    trial = launch(Task(purpose="measure", cell=cell, key=record.key, models=record.models), launcher, tmp_path)

    steps = job_steps(trial)
    assert sorted(steps) == list(range(record.models))
    assert min(steps.values()) > PARITY_STEPS, "the window's steps are compared as well"
    if record.phase == "generate":
        sequences = [job.generation.sequences for rank in trial.ranks for job in rank.jobs if job.generation]
        assert sum(map(len, sequences)) >= sum(steps.values()) * record.global_batch
        assert differing_sequences(trial, references[record.reference]) == 0
        return
    assert {job: len(losses) for job, losses in job_losses(trial).items()} == steps
    if record.exact:
        deviation = compare(trial, references[record.reference], record.precision)
        assert (deviation.first, deviation.steps) == (None, min(steps.values())), deviation
        if record.family == "moe":
            assert deviation.nats < 1e-5, "far less than what a token does that takes another way"
    assert validation_perplexity(trial) == pytest.approx(64, rel=0.5), "untrained on uniform tokens"


AGAIN: tuple[Checkpointing, ...] = (True, "selective", Every(every=2))
AXES = [{"gradient_accumulation": 2}, {"loss_chunks": 3}, *({"activation_checkpointing": each} for each in AGAIN)]


@pytest.mark.parametrize("changes", AXES, ids=str)
def test_what_saves_memory_changes_no_loss(changes: dict[str, object], launcher: LocalLauncher, tmp_path: Path) -> None:
    """The references of such workloads are computed with it, so it is compared here with doing without."""
    single = next(cell for cell in plan().runnable if cell.record.is_reference and cell.record.workload == PLAIN[1])
    changed = replace(single, workload=single.workload.model_copy(update=changes))
    trials = [
        launch(Task(purpose="measure", cell=cell, key=f"k{number}", models=1), launcher, tmp_path)
        for number, cell in enumerate((single, changed))
    ]
    assert compare(*trials, "fp32").first is None


def test_models_differ_from_each_other(launcher: LocalLauncher, tmp_path: Path) -> None:
    cell = next(cell for cell in plan().runnable if cell.record.is_reference and cell.record.models == 4)
    losses = job_losses(launch(Task(purpose="measure", cell=cell, key="k", models=4), launcher, tmp_path))
    assert len({tuple(steps) for steps in losses.values()}) == 4


def test_every_registered_strategy_is_tested_on_several_devices_unless_it_says_that_it_does_not_scale() -> None:
    tested = {(cell.record.strategy, cell.devices.count) for cell in CELLS}
    for name in BUILT_IN:
        assert {(name, count) for count in ((1, 2, 4) if STRATEGIES[name].scales else (1,))} <= tested


def test_every_strategy_is_tested_in_every_phase_that_it_has() -> None:
    tested = {(cell.record.strategy, cell.record.phase) for cell in CELLS}
    assert {(name, phase) for name in BUILT_IN for phase in STRATEGIES[name].phases} <= tested
