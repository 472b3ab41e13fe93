"""Predicted memory: what lasts through a step by exact arithmetic, what comes and goes by what must make it more."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parbench.plan.cells import Cell
from parbench.plan.reading import read_plan
from parbench.records.prediction import MemoryPrediction
from parbench.strategies.model_parallel import plan_stages
from tests.support.parameters import Model, Shape, model_of
from tests.support.predictions import CORES

REPOSITORY = Path(__file__).parents[3]
SCENARIO = """
workloads:
  gpt:
    model: {kind: transformer, layers: 4, d_model: 64, heads: 4}
    data: {source: synthetic, vocab_size: 256, tokens: 20000}
    seq_len: 16
    global_batch: [8, 16]
    activation_checkpointing: [none, full, selective, {every: 2}]
  lstm:
    model: {kind: lstm, layers: 4, d_model: 32}
    data: {source: synthetic, vocab_size: 256, tokens: 20000}
    seq_len: 8
    global_batch: 8
  half:
    model: {kind: transformer, layers: 4, d_model: 64, heads: 4}
    data: {source: synthetic, vocab_size: 256, tokens: 20000}
    seq_len: 16
    global_batch: 8
    precision: [bf16, fp16]
  experts:
    model: {kind: moe, layers: 2, d_model: 64, heads: 4, experts: 4, capacity_factor: [1.25, null]}
    data: {source: synthetic, vocab_size: 256, tokens: 20000}
    seq_len: 8
    global_batch: 8
strategies:
  - single
  - data_parallel
  - ddp
  - ddp: {shard_optimizer: true}
  - ddp: {communication_hook: fp16}
  - fsdp
  - tensor_parallel
  - context_parallel: {method: [ring, ulysses]}
  - expert_parallel
  - model_parallel: {schedule: [gpipe, 1f1b], micro_batches: 4}
  - local_sgd: {period: 2}
  - ensemble: {models_per_device: 2}
  - hybrid: {data: 2, pipeline: 2, tensor: 2}
devices: {kind: cpu, counts: [2, 8]}
exclude:
  - {devices: 8, strategy: ['[!h]*']}
  - {devices: 2, strategy: hybrid}
  - {workload: half*, strategy: ['[!smh]*']}
  - {activation_checkpointing: true, strategy: ['[!sm]*']}
  - {workload: 'experts*', strategy: [data_parallel, hybrid]}
  - {workload: 'experts*=None)', strategy: ['[!s]*']}
  - {global_batch: 16, strategy: ['[!sm]*']}
"""
CUT = ("context_parallel(method=ring)", "context_parallel(method=ulysses)")
"""Each rank of these has a part of every sequence."""
WHOLE = ("single", "ddp", "ddp(communication_hook=fp16)", "local_sgd", *CUT)
"""Every rank of these has all of one model, with gradients and state."""


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rehearsal") / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture(scope="module")
def cells(scenario: Path) -> dict[str, Cell]:
    return {cell.record.id: cell for cell in read_plan(scenario, CORES).runnable}


@pytest.fixture(scope="module")
def predictions(scenario: Path) -> dict[str, list[MemoryPrediction] | str]:
    out = scenario.with_suffix(".json")
    command = [sys.executable, "-m", "tests.support.predictions", str(scenario), str(out)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return {
        cell: ranks if isinstance(ranks, str) else [MemoryPrediction.model_validate(rank) for rank in ranks]
        for cell, ranks in json.loads(out.read_text()).items()
    }


def of_label(cells: dict[str, Cell], *labels: str) -> list[str]:
    chosen = [cell for cell, each in cells.items() if each.record.label in labels]
    assert chosen
    return chosen


def adam(model: Model) -> int:
    """The bytes of Adam's two moments of every parameter, and of its counter of steps."""
    return 8 * model.size + 4 * len(model.shapes)


DROPLESS = "experts(capacity_factor=None)/single/1"


def test_every_rank_of_every_strategy_can_be_rehearsed_but_threads(cells, predictions) -> None:
    refused = {cell: reason for cell, reason in predictions.items() if isinstance(reason, str)}
    assert refused.pop(DROPLESS) == (
        "Unsupported: fake tensors have no data, and where nothing is dropped, an expert's tokens are more or fewer in "
        "every step; set capacity_factor"
    )
    assert refused.keys() == set(of_label(cells, "data_parallel"))
    assert set(refused.values()) == {
        "Unsupported: one process drives several devices, from threads that know nothing of fake tensors"
    }
    for cell in predictions.keys() - refused.keys() - {DROPLESS}:
        for rank in predictions[cell]:
            assert rank.activations > 0
            assert rank.peak >= rank.lasting > 0
            assert set(rank.at_peak) <= {"parameters", "gradients", "optimizer_state", "activations", "other"}


def test_replicas_have_all_of_a_model(cells, predictions) -> None:
    for cell in set(of_label(cells, *WHOLE)) - {DROPLESS}:
        model = model_of(cells[cell].workload)
        for rank in predictions[cell]:
            assert (rank.parameters, rank.gradients) == (4 * model.size, 4 * model.size), cell
            assert rank.optimizer_state == adam(model), cell


def test_a_sharded_optimizer_has_its_state_once(cells, predictions) -> None:
    for cell in of_label(cells, "ddp(shard_optimizer=True)"):
        model, ranks = model_of(cells[cell].workload), predictions[cell]
        assert {(rank.parameters, rank.gradients) for rank in ranks} == {(4 * model.size, 4 * model.size)}
        assert sum(rank.optimizer_state for rank in ranks) == adam(model)
        assert max(rank.optimizer_state for rank in ranks) < 0.7 * adam(model)


def shard(model: Model) -> Model:
    """Half of the rows of every parameter; here all have an even number."""
    return model.map(lambda shape: shape._replace(rows=shape.rows // 2))


def split(model: Model) -> Model:
    return model.on_each_of(2)


@pytest.mark.parametrize(("label", "part"), [("fsdp", shard), ("tensor_parallel", split)])
def test_parts_of_everything(cells, predictions, label: str, part: Callable[[Model], Model]) -> None:
    for cell in of_label(cells, label):
        own = part(model_of(cells[cell].workload))
        for rank in predictions[cell]:
            assert (rank.parameters, rank.gradients) == (4 * own.size, 4 * own.size), cell
            assert rank.optimizer_state == adam(own), cell


def test_spread_experts_are_in_one_rank_and_all_else_in_both(cells, predictions) -> None:
    for cell in of_label(cells, "expert_parallel"):
        whole = model_of(cells[cell].workload)
        own = whole._replace(
            blocks=tuple(
                block._replace(experts=tuple(Shape(shape.rows // 2, shape.columns) for shape in block.experts))
                for block in whole.blocks
            )
        )
        assert own.size < whole.size
        for rank in predictions[cell]:
            assert (rank.parameters, rank.gradients) == (4 * own.size, 4 * own.size), cell
            assert rank.optimizer_state == adam(own), cell


def test_a_stage_has_its_own_blocks_alone(cells, predictions) -> None:
    for cell in (each for each in cells if cells[each].strategy.name == "model_parallel"):
        spec, options = cells[cell].workload, cells[cell].strategy.options
        for rank, stage in zip(predictions[cell], plan_stages(options, spec, 2), strict=True):
            own = model_of(spec).stage(stage)
            assert (rank.parameters, rank.gradients) == (4 * own.size, 4 * own.size), cell
            assert rank.optimizer_state == adam(own), cell


def test_stacked_models_have_as_many_times_the_memory(cells, predictions) -> None:
    for cell in of_label(cells, "ensemble"):
        model = model_of(cells[cell].workload)
        assert {rank.parameters for rank in predictions[cell]} == {2 * 4 * model.size}


def gpt(label: str, *, batch: int = 8, checkpointing: str = "activation_checkpointing=none") -> str:
    devices = 1 if label == "single" else 2
    return f"gpt(global_batch={batch}, {checkpointing})/{label}/{devices}"


def test_activations_grow_with_the_batch_and_shrink_where_they_are_computed_again(predictions) -> None:
    small, large = (predictions[gpt("single", batch=batch)][0].activations for batch in (8, 16))
    assert large == pytest.approx(2 * small, rel=0.01)
    again = gpt("single", checkpointing="activation_checkpointing=full")
    assert predictions[again][0].activations < 0.6 * small


@pytest.mark.parametrize("label", ["single", "model_parallel(schedule=gpipe)", "model_parallel(schedule=1f1b)"])
def test_less_is_kept_the_more_is_computed_again(predictions, label: str) -> None:
    none, full, selective = (f"activation_checkpointing={kind}" for kind in ("none", "full", "selective"))
    for rank in range(len(predictions[gpt(label)])):
        kept = {kind: predictions[gpt(label, checkpointing=kind)][rank] for kind in (none, full, selective, "every=2")}
        assert kept[full].activations < kept["every=2"].activations < kept[none].activations
        assert kept[full].activations < kept[selective].activations < kept[none].activations
        assert len({each.lasting for each in kept.values()}) == 1


@pytest.mark.parametrize("label", CUT)
def test_a_rank_keeps_the_activations_of_its_positions_alone(predictions, label: str) -> None:
    whole = predictions[gpt("single")][0].activations
    for rank in predictions[gpt(label)]:
        assert 0.4 * whole < rank.activations < 0.6 * whole


def test_alternating_schedules_keep_fewer_micro_batches(predictions) -> None:
    gpipe, alternating = (
        predictions[gpt(f"model_parallel(schedule={schedule})", batch=16)][0].activations
        for schedule in ("gpipe", "1f1b")
    )
    assert alternating < 0.7 * gpipe


def test_sharing_lowers_the_peak(predictions) -> None:
    peaks = [predictions[gpt(label)][0].peak for label in ("fsdp", "ddp(shard_optimizer=True)", "ddp")]
    assert peaks == sorted(set(peaks))


def test_matrix_products_in_16_bits_keep_smaller_activations(predictions) -> None:
    full, half = predictions[gpt("single")][0], predictions["half(precision=bf16)/single/1"][0]
    assert half.activations < full.activations
    assert half.lasting == full.lasting
