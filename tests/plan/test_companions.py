"""What is launched to explain a cell: the batch of one of its devices, alone and on all devices at once."""

from pathlib import Path

import pytest

from parbench.plan.cells import Cell, Plan
from parbench.plan.companions import step_of_one_device
from parbench.plan.reading import read_plan
from parbench.strategies.base import STRATEGIES, Layout
from parbench.system.devices import Machine

SCENARIO = """\
workloads:
  lstm:
    model: {kind: lstm, layers: 4}
    global_batch: 32
strategies:
  - single
  - data_parallel
  - ddp
  - model_parallel: {schedule: [naive, gpipe]}
  - task_pool
devices: {kind: cpu, counts: [1, 2]}
measure: {explain: true}
"""


def planned(folder: Path, *overrides: str) -> Plan:
    (folder / "s.yaml").write_text(SCENARIO)
    return read_plan(folder / "s.yaml", Machine(cores=((0,), (1,), (2,), (3,))), overrides)


def cell_of(plan: Plan, start: str) -> Cell:
    return next(cell for cell in plan.cells if cell.record.id.startswith(start) and cell.record.devices > 1)


def keys(plan: Plan) -> set[str]:
    return {cell.record.key for cell in plan.cells}


def test_what_runs_independent_models_says_so() -> None:
    assert [name for name, strategy in STRATEGIES.classes().items() if strategy.independent] == ["task_pool"]


def test_cells_whose_devices_take_the_same_batch_share_companions(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert [each.record.id for each in plan.companions] == [
        "lstm/single/1 (companion, batch 16)",
        "lstm/task_pool/2 (companion, batch 16)",
        "lstm/single/1 (companion, batch 32 in 4 parts)",
        "lstm/task_pool/2 (companion, batch 32 in 4 parts)",
    ]
    ddp, threads = (cell_of(plan, f"lstm/{name}/") for name in ("ddp", "data_parallel"))
    assert ddp.record.companions == threads.record.companions
    alone, together = plan.companions[:2]
    assert ddp.companions
    assert [each.record.key for each in ddp.companions] == [alone.record.key, together.record.key]
    assert (alone.devices.count, alone.workload.models, alone.record.global_batch) == (1, 1, 16)
    assert (together.devices.count, together.workload.models, together.record.global_batch) == (2, 2, 16)
    assert together.layout
    assert together.layout.lanes == 2


def test_what_takes_the_whole_batch_at_once_is_explained_by_cells_of_the_plan(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    naive = cell_of(plan, "lstm/model_parallel(schedule=naive)")
    assert naive.record.companions
    single = next(cell for cell in plan.cells if cell.record.is_reference)
    assert naive.record.companions.alone.key == single.record.key
    assert naive.record.companions.together.key == cell_of(plan, "lstm/task_pool").record.key
    without_pool = plan.only("*/single/*", "*model_parallel(schedule=naive)*")
    assert [each.record.id for each in without_pool.companions] == ["lstm/task_pool/2 (companion, batch 32)"]


def test_in_weak_scaling_each_device_has_the_bases_batch(tmp_path: Path) -> None:
    plan = planned(tmp_path, "scaling=weak", 'strategies=["single", "ddp", "task_pool"]')
    ddp = cell_of(plan, "lstm/ddp")
    assert ddp.record.companions
    assert {ddp.record.companions.alone.key, ddp.record.companions.together.key} < keys(plan)
    assert plan.companions == []


def test_nothing_explains_one_device_several_models_or_what_is_skipped(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    for cell in plan.cells:
        assert (cell.record.companions is None) == (cell.record.devices == 1 or cell.record.strategy == "task_pool")
    assert planned(tmp_path, "workloads.lstm.models=2").companions == []
    odd = planned(tmp_path, "workloads.lstm.global_batch=33", "devices.counts=2")
    assert [cell.record.strategy for cell in odd.cells if cell.companions] == ["model_parallel"], "naive takes it whole"


def test_without_a_base_there_is_nothing_to_relate_them_to(tmp_path: Path) -> None:
    assert planned(tmp_path, 'strategies=["ddp", "task_pool"]').companions == []
    assert planned(tmp_path).only("*/ddp/2").companions == []


def test_they_are_launched_where_the_scenario_asks_and_change_no_key(tmp_path: Path) -> None:
    plan, quiet = planned(tmp_path), planned(tmp_path, "measure.explain=false")
    assert quiet.companions == plan.unexplained().companions == []
    assert [cell.record for cell in quiet.cells] == [cell.record for cell in plan.cells]
    assert quiet.launches_a_round == plan.launches_a_round
    assert not {each.record.key for each in plan.companions} & keys(plan)


def test_what_is_set_for_a_single_model_is_so_for_every_copy(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "workloads.lstm.models=1",
        "workloads.lstm.length_per_model=[1.0]",
        "workloads.lstm.optimizer={lr_per_model: [0.5]}",
        'strategies=["single", "ddp"]',
    )
    _, together = plan.companions
    assert (together.workload.optimizer.lr, together.workload.optimizer.lr_per_model) == (0.5, None)
    assert together.workload.length_per_model is None


@pytest.mark.parametrize(
    ("layout", "changes", "expected"),
    [
        (Layout(processes=4, data_shards=4), {}, (8, 1)),
        (Layout(processes=4, data_shards=4), {"gradient_accumulation": 2}, (8, 2)),
        (Layout(processes=1, devices_per_process=4), {}, (8, 1)),
        (Layout(processes=4), {}, (32, 1)),
        (Layout(processes=4, micro_batches=8), {}, (32, 8)),
        (Layout(processes=4, data_shards=2, micro_batches=4), {"gradient_accumulation": 2}, (16, 8)),
        (Layout(processes=4, micro_batches=8), {"phase": "score"}, (4, 1)),
        (Layout(processes=4, data_shards=2, micro_batches=4), {"phase": "generate"}, (4, 1)),
        (Layout(processes=3, data_shards=3), {}, None),
        (Layout(processes=4, micro_batches=64), {}, None),
    ],
)
def test_what_one_device_of_a_layout_computes(layout, changes, expected, tmp_path: Path) -> None:
    workload = planned(tmp_path).scenario.workloads["lstm"].model_copy(update=changes)
    step = step_of_one_device(workload, layout)
    assert (step and (step.global_batch, step.gradient_accumulation)) == expected


@pytest.mark.parametrize(
    ("options", "micro_batches"),
    [
        ({"data": 2, "pipeline": 2, "tensor": 1, "micro_batches": 4}, 4),
        ({"data": 4, "pipeline": 1, "tensor": 1}, 1),
    ],
)
def test_a_mesh_with_a_pipeline_takes_micro_batches(options, micro_batches, tmp_path: Path) -> None:
    plan = planned(tmp_path, f"strategies=[single, {{hybrid: {options}}}]", "devices.counts=4")
    layout = cell_of(plan, "lstm/hybrid").layout
    assert layout
    assert (layout.data_shards, layout.micro_batches) == (options["data"], micro_batches)
