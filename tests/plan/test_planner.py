from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.errors import Mistake, ScenarioError
from parbench.plan import cell_key
from parbench.plan.cells import Cell, Plan
from parbench.plan.reading import catalogue, read_plan
from parbench.scenario.specs import Options
from parbench.strategies.base import STRATEGIES
from parbench.system.devices import NOT_STARTED, Machine

SCENARIOS = sorted(Path(__file__).parents[2].glob("scenarios/*.yaml"))
GOOD = """\
workloads:
  lstm:
    model: {kind: lstm, layers: 4}
    global_batch: 32
strategies:
  - single
  - data_parallel
  - ddp
  - model_parallel: {schedule: gpipe, micro_batches: 4}
  - task_pool
"""


def machine(cores: int = 4, gpus: int = 0) -> Machine:
    return Machine(cores=tuple((cpu,) for cpu in range(cores)), gpus=gpus)


@pytest.fixture
def plan(tmp_path):
    """Plans the scenario above, with overrides, on a made-up machine."""
    path = tmp_path / "cells.yaml"
    path.write_text(GOOD)

    def make(*overrides: str, here: Machine | None = None) -> Plan:
        return read_plan(path, here or machine(), overrides)

    return make


@pytest.fixture
def mistakes(plan):
    def of(*overrides: str, here: Machine | None = None) -> list[Mistake]:
        with pytest.raises(ScenarioError) as caught:
            plan(*overrides, here=here)
        return caught.value.mistakes

    return of


def cells(plan: Plan, strategy: str, scaling: str = "strong") -> dict[int, Cell]:
    """The cells of a strategy by their number of devices."""
    return {
        cell.record.devices: cell
        for cell in plan.cells
        if (cell.record.strategy, cell.record.scaling) == (strategy, scaling)
    }


def key_of(plan: Plan, strategy: str = "model_parallel", devices: int = 2) -> str:
    return cells(plan, strategy)[devices].record.key


def test_a_plan_has_a_cell_for_each_strategy_and_count(plan):
    made = plan()
    assert [cell.record.id for cell in made.cells] == [
        "lstm/single/1",
        *(
            f"lstm/{strategy}/{count}"
            for strategy in ("data_parallel", "ddp", "model_parallel", "task_pool")
            for count in (1, 2, 4)
        ),
    ]
    assert made.scenario.name == "cells"
    assert made.runnable == list(made.cells)


def test_a_plan_knows_where_its_scenario_lies_and_for_which_machine_it_was_made(plan, tmp_path):
    here = machine(2)
    made = plan(here=here)
    assert (made.folder, made.machine) == (tmp_path, here)


def test_a_cells_record_tells_what_it_is(plan):
    record = cells(plan("workloads.lstm.seq_len=16"), "ddp")[2].record
    assert (record.workload, record.family, record.strategy, record.label) == ("lstm", "lstm", "ddp", "ddp")
    assert (record.seq_len, record.global_batch, record.precision, record.models) == (16, 32, "fp32", 1)
    assert (record.device_kind, record.devices, record.scaling) == ("cpu", 2, "strong")
    assert (record.is_reference, record.exact, record.reason) == (False, True, None)
    assert cells(plan(), "single")[1].record.is_reference


@pytest.mark.parametrize(
    ("here", "overrides", "kind", "counts"),
    [
        (machine(1), [], "cpu", [1]),
        (machine(3), [], "cpu", [1, 2]),
        (machine(4), [], "cpu", [1, 2, 4]),
        (machine(7), [], "cpu", [1, 2, 4]),
        (machine(8), ["devices.cores_per_device=2"], "cpu", [1, 2, 4]),
        (machine(7), ["devices.cores_per_device=2"], "cpu", [1, 2]),
        (machine(8, gpus=2), [], "cuda", [1, 2]),
        (machine(8, gpus=4), ["devices.kind=cuda"], "cuda", [1, 2, 4]),
        (machine(2, gpus=4), ["devices.kind=cpu"], "cpu", [1, 2]),
        (machine(4), ["devices.counts=[4, 2, 4]"], "cpu", [2, 4]),
        (machine(4), ["devices.counts=4"], "cpu", [4]),
        (machine(2), ["devices.counts=[1, 4]", "devices.oversubscribe=true"], "cpu", [1, 4]),
    ],
)
def test_the_devices_that_are_counted(plan, here, overrides, kind, counts):
    found = cells(plan(*overrides, here=here), "ddp")
    assert list(found) == counts
    assert {cell.devices.kind for cell in found.values()} == {kind}


@given(cores=st.integers(1, 200), per_device=st.integers(1, 8))
def test_auto_counts_are_the_powers_of_two_up_to_the_machine(tmp_path_factory, cores, per_device):
    path = tmp_path_factory.getbasetemp() / "auto.yaml"
    path.write_text(GOOD)
    with suppress(ScenarioError):
        made = read_plan(path, machine(cores), [f"devices.cores_per_device={per_device}"])
        counts = list(cells(made, "task_pool"))
        assert counts == [2**power for power in range(len(counts))]
        assert counts[-1] * per_device <= cores < 2 * counts[-1] * per_device + per_device


@pytest.mark.parametrize("overrides", [[], ["devices.counts=[2, 4]"], ["devices.counts=4"]])
def test_single_is_one_cell_on_one_device_whatever_the_counts(plan, overrides):
    made = plan(*overrides)
    assert list(cells(made, "single")) == [1]
    assert cells(made, "single")[1].layout is not None


@pytest.mark.parametrize(
    ("here", "override", "path", "words"),
    [
        (machine(2), "devices.counts=3", "devices.counts", "3 devices, but there are 2 here"),
        (machine(2), "devices.counts=3", "devices.counts", "or set oversubscribe: true"),
        (machine(4), "devices={counts: 4, cores_per_device: 2}", "devices.counts", "there are 2 here"),
        (machine(2), "devices.kind=cuda", "devices.kind", "there is no CUDA device"),
        (machine(2), "devices.cores_per_device=3", "devices.cores_per_device", "use at most 2"),
    ],
)
def test_devices_that_are_not_there_are_a_mistake(mistakes, here, override, path, words):
    (mistake,) = [mistake for mistake in mistakes(override, here=here) if mistake.path.startswith(path)]
    assert words in mistake.message
    assert mistake.source == f"--set {override.partition('=')[0]}"


def test_each_count_beyond_the_machine_is_a_mistake(mistakes):
    found = mistakes("devices={kind: cpu, counts: [1, 3, 2, 4]}", here=machine(2))
    assert [mistake.path for mistake in found if "devices, but" in mistake.message] == [
        "devices.counts.1",
        "devices.counts.3",
    ]


def test_a_scenario_for_any_machine_skips_the_counts_that_this_one_lacks(plan, mistakes):
    portable = "devices={kind: auto, counts: [1, 2, 4], oversubscribe: true}"
    on_gpus = cells(plan(portable, here=machine(8, gpus=2)), "ddp")
    assert {count: cell.record.reason for count, cell in on_gpus.items()} == {
        1: None,
        2: None,
        4: "needs 4 devices; there are 2 here",
    }
    on_cores = cells(plan(portable, here=machine(2)), "ddp")
    assert all(cell.layout for cell in on_cores.values())
    (mistake,) = mistakes("devices={kind: auto, counts: [4]}", here=machine(2))
    assert "4 devices, but there are 2 here" in mistake.message


def test_gpus_are_shared_only_where_the_scenario_says_so(plan, mistakes):
    (mistake,) = mistakes("devices={kind: cuda, counts: [1, 4]}", here=machine(8, gpus=2))
    assert mistake.message == "4 devices, but there are 2 here; use at most that; or set oversubscribe: true"
    (mistake,) = mistakes("devices={kind: auto, counts: [4], oversubscribe: true}", here=machine(8, gpus=2))
    assert mistake.message == "4 devices, but there are 2 here; use at most that"
    made = plan("devices={kind: cuda, counts: [1, 4], oversubscribe: true}", here=machine(8, gpus=2))
    assert {count: cell.record.oversubscribed for count, cell in cells(made, "ddp").items()} == {1: False, 4: True}


def test_what_gloo_cannot_exchange_keeps_a_gpu_to_itself(tmp_path):
    path = tmp_path / "shared.yaml"
    path.write_text(
        "workloads: {gpt: {model: {kind: transformer, layers: 4}, data: {source: synthetic, vocab_size: 64}}}\n"
        "strategies: [single, data_parallel, ddp, fsdp, tensor_parallel, model_parallel, local_sgd, task_pool, hybrid]"
        "\n"
        "devices: {kind: cuda, counts: [2], oversubscribe: true}\n"
    )
    reasons = {cell.record.strategy: cell.record.reason for cell in read_plan(path, machine(8, gpus=1)).cells}
    alone = "its ranks would share a GPU, which NCCL's cannot, and gloo lacks what they exchange there"
    assert reasons == {
        **dict.fromkeys(("single", "ddp", "local_sgd", "task_pool")),
        **dict.fromkeys(("fsdp", "tensor_parallel", "model_parallel", "hybrid"), alone),
        "data_parallel": "one process drives 2 GPUs, and a GPU cannot be several of them",
    }
    assert not [cell for cell in read_plan(path, machine(8, gpus=2)).cells if cell.record.reason]


def test_an_oversubscribed_cell_says_so(plan):
    made = plan("devices={counts: [1, 2, 4], oversubscribe: true}", here=machine(2))
    assert {count: cell.record.oversubscribed for count, cell in cells(made, "ddp").items()} == {
        1: False,
        2: False,
        4: True,
    }


@pytest.mark.parametrize(("here", "emulated"), [(machine(2), {"data_parallel"}), (machine(2, gpus=2), set())])
def test_only_data_parallel_on_cpu_is_emulated(plan, here, emulated):
    made = plan(here=here)
    assert {cell.record.strategy for cell in made.cells if cell.record.emulated} == emulated


def test_a_count_of_auto_that_cannot_be_laid_out_is_skipped_with_its_reason(plan):
    made = plan("workloads.lstm.global_batch=4", "workloads.lstm.model.layers=2", here=machine(8))
    ddp, stages = cells(made, "ddp"), cells(made, "model_parallel")
    assert [count for count, cell in ddp.items() if cell.layout is None] == [8]
    assert ddp[8].record.reason == "a global batch of 4 does not divide into 8 equal data shards"
    assert {count: cell.record.reason for count, cell in stages.items()} == {
        1: None,
        2: None,
        4: "2 blocks and the head are too few for 4 stages",
        8: "2 blocks and the head are too few for 8 stages",
    }
    assert {cell.record.id for cell in made.cells} - {cell.record.id for cell in made.runnable} == {
        "lstm/data_parallel/8",
        "lstm/ddp/8",
        "lstm/model_parallel/4",
        "lstm/model_parallel/8",
    }


def test_a_batch_that_some_cells_cannot_divide_costs_those_their_cells_alone(plan):
    made = plan("workloads.lstm.global_batch=30", "devices.counts=[2, 4]")
    assert {cell.record.id: cell.record.reason for cell in made.cells if cell.layout is None} == {
        "lstm/data_parallel/4": "a global batch of 30 does not divide into 4 equal replica batches",
        "lstm/ddp/4": "a global batch of 30 does not divide into 4 equal data shards",
        "lstm/model_parallel/2": "a global batch of 30 does not divide into 4 equal micro-batches",
        "lstm/model_parallel/4": "a global batch of 30 does not divide into 4 equal micro-batches",
    }
    assert not made.broken


@pytest.mark.parametrize("counts", ["[2, 4]", "auto"])
def test_a_batch_that_no_cell_can_divide_is_a_mistake(tmp_path, counts):
    path = tmp_path / "cells.yaml"
    strategies = "[{model_parallel: {micro_batches: 4}}, {model_parallel: {micro_batches: 8}}]"
    text = GOOD.replace("32", "30").partition("strategies:")[0]
    path.write_text(f"{text}strategies: {strategies}\ndevices: {{counts: {counts}}}\n")
    with pytest.raises(ScenarioError) as caught:
        read_plan(path, machine())
    assert {(mistake.line, mistake.path) for mistake in caught.value.mistakes} == {(4, "workloads.lstm.global_batch")}
    assert [mistake.message for mistake in caught.value.mistakes] == [
        "model_parallel(micro_batches=4): a global batch of 30 does not divide into 4 equal micro-batches",
        "model_parallel(micro_batches=8): a global batch of 30 does not divide into 8 equal micro-batches",
    ]


def test_a_batch_is_a_mistake_of_its_own_workload_alone(tmp_path):
    path = tmp_path / "cells.yaml"
    path.write_text(
        "workloads:\n  even: {model: {kind: lstm}}\n  odd: {model: {kind: lstm}, global_batch: 3}\n"
        "strategies: [ddp]\ndevices: {counts: [2]}\n"
    )
    with pytest.raises(ScenarioError) as caught:
        read_plan(path, machine())
    assert [(mistake.line, mistake.path) for mistake in caught.value.mistakes] == [(3, "workloads.odd.global_batch")]


def test_an_option_that_stands_in_the_way_is_a_mistake_at_its_line(tmp_path):
    path = tmp_path / "option.yaml"
    path.write_text(
        GOOD.replace("schedule: gpipe, micro_batches: 4", "schedule: 1f1b, micro_batches: 2") + "devices: {counts: 4}\n"
    )
    with pytest.raises(ScenarioError) as caught:
        read_plan(path, machine())
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.path) == (9, "strategies.3.model_parallel.micro_batches")


def test_blocks_that_are_too_few_are_skipped_even_for_counts_that_were_written(plan):
    made = plan("devices.counts=[4]", "workloads.lstm.model.layers=2")
    assert cells(made, "model_parallel")[4].record.reason == "2 blocks and the head are too few for 4 stages"


def test_a_mistake_of_a_workload_called_like_a_strategy_stands_at_the_workload(tmp_path):
    path = tmp_path / "names.yaml"
    path.write_text(
        "workloads:\n  ddp: {model: {kind: lstm}, global_batch: 3}\nstrategies: [ddp]\ndevices: {counts: [2]}\n"
    )
    with pytest.raises(ScenarioError) as caught:
        read_plan(path, machine())
    assert [(mistake.line, mistake.path) for mistake in caught.value.mistakes] == [(2, "workloads.ddp.global_batch")]


def test_mistakes_of_the_text_and_of_the_machine_are_told_together(mistakes):
    found = mistakes("measure.rounds=0", "strategies.0=sinlge", "devices.counts=99")
    assert {mistake.path for mistake in found} >= {"measure.rounds", "strategies.0", "devices.counts.0"}


def test_weak_scaling_grows_the_batch_with_the_devices_that_share_a_model(plan):
    made = plan("scaling=weak")
    for strategy in ("data_parallel", "ddp", "model_parallel"):
        batches = {count: cell.record.global_batch for count, cell in cells(made, strategy, "weak").items()}
        assert batches == {1: 32, 2: 64, 4: 128}
    lanes = cells(made, "task_pool", "weak").values()
    assert {cell.record.global_batch for cell in lanes} == {32}
    crowded = cells(
        plan("scaling=weak", "strategies=[{task_pool: {tasks_per_device: 2}}]"), "task_pool", "weak"
    ).values()
    assert {cell.record.global_batch for cell in crowded} == {32}
    assert all(cell.workload.global_batch == cell.record.global_batch for cell in made.cells)


def test_a_batch_is_cut_after_it_has_grown(plan):
    found = cells(plan("scaling=weak", "workloads.lstm.global_batch=1"), "ddp", "weak")
    assert all(cell.layout for cell in found.values())


def test_both_scalings_are_one_measurement_on_one_device(plan):
    made = plan("scaling=[strong, weak]")
    strong, weak = cells(made, "ddp"), cells(made, "ddp", "weak")
    assert strong[1].record.key == weak[1].record.key
    assert strong[1].record.id != weak[1].record.id
    assert strong[2].record.key != weak[2].record.key
    keys = [cell.record.key for cell in made.runnable]
    assert len(set(keys)) == len(keys) < len(made.cells)


@pytest.mark.parametrize(("models", "pool", "others"), [("auto", {1: 1, 2: 2, 4: 4}, 1), ("5", {1: 5, 2: 5, 4: 5}, 5)])
def test_models_of_auto_are_one_for_each_lane(plan, models, pool, others):
    made = plan(f"workloads.lstm.models={models}")
    assert {count: cell.record.models for count, cell in cells(made, "task_pool").items()} == pool
    assert {cell.record.models for cell in made.cells if cell.record.strategy != "task_pool"} == {others}
    assert all(cell.workload.models == cell.record.models for cell in made.cells)


def test_a_pool_without_a_model_for_each_device_is_skipped(plan):
    reasons = {count: cell.record.reason for count, cell in cells(plan("workloads.lstm.models=2"), "task_pool").items()}
    assert reasons == {1: None, 2: None, 4: "a pool of 4 devices needs at least 4 models"}


def test_keys_tell_every_measurement_from_every_other(plan):
    made = plan("workloads.lstm.seq_len=[32, 64]", "workloads.lstm.optimizer.lr=[1e-3, 1e-2]")
    keys = [cell.record.key for cell in made.cells]
    assert len(set(keys)) == len(keys) == 4 * 13


@pytest.mark.parametrize(
    "override",
    [
        "workloads.lstm.model.layers=5",
        "workloads.lstm.model.d_model=128",
        "workloads.lstm.model.kind=transformer",
        "workloads.lstm.data={source: synthetic, vocab_size: 256}",
        "workloads.lstm.seq_len=32",
        "workloads.lstm.global_batch=64",
        "workloads.lstm.models=2",
        "workloads.lstm.optimizer.name=sgd",
        "workloads.lstm.optimizer.lr=1e-2",
        "strategies.3.model_parallel.micro_batches=8",
        "strategies.3.model_parallel.schedule=1f1b",
        "devices.cores_per_device=2",
        "measure.warmup=3",
        "measure.window_s=1.0",
        "measure.validation_batches=1",
        "measure.seed=1",
    ],
)
def test_a_key_changes_with_all_that_decides_what_is_measured(plan, override):
    assert key_of(plan(override)) != key_of(plan())


@pytest.mark.parametrize(
    "override",
    [
        "measure.rounds=99",
        "measure.deadline_s=60",
        "name=other",
        "description=other",
        "workloads.lstm.models=1",
        "devices.counts=[2]",
        "devices.oversubscribe=true",
        "strategies.0=single",
        "cost={per_device_hour: 2.5}",
        "scaling=[strong, weak]",
    ],
)
def test_a_key_stays_whatever_does_not_change_what_is_measured(plan, override):
    assert key_of(plan(override)) == key_of(plan())


def test_the_price_of_a_device_is_a_cells_and_that_of_no_key(plan):
    priced = plan("cost={per_device_hour: 2.5, currency: USD}")
    assert {(cell.record.price_per_device_hour, cell.record.currency) for cell in priced.cells} == {(2.5, "USD")}
    assert {(cell.record.price_per_device_hour, cell.record.currency) for cell in plan().cells} == {(None, "")}
    for cell, other in zip(priced.cells, plan().cells, strict=True):
        assert (cell.record.key, cell.record.reference) == (other.record.key, other.record.reference)


def test_a_key_depends_on_what_becomes_of_freed_memory(plan):
    assert key_of(plan("measure.malloc=default")) == key_of(plan())
    assert key_of(plan("measure.malloc=trim")) != key_of(plan())


def test_fields_that_are_added_later_change_no_key_by_their_defaults(plan, monkeypatch):
    with_defaults, chunked = key_of(plan()), key_of(plan("workloads.lstm.loss_chunks=2"), "single", 1)
    assert chunked != key_of(plan(), "single", 1)
    monkeypatch.delitem(cell_key.LATER_FIELDS, "loss_chunks")
    assert key_of(plan()) != with_defaults


def test_a_key_tells_what_is_computed_again_and_is_that_of_before_for_none_and_all_of_it(plan):
    def key(value: str) -> str:
        return key_of(plan(f"workloads.lstm.activation_checkpointing={value}"))

    assert key_of(plan()) == key("none") == key("false")
    assert key("full") == key("true")
    kinds = ("none", "full", "selective", "offloaded", "{every: 2}", "{every: 3}")
    assert len({key(value) for value in kinds}) == len(kinds)


def test_what_cannot_be_chosen_to_be_computed_again_says_why(plan):
    def reason(value: str, *overrides: str) -> str | None:
        made = plan(f"workloads.lstm.activation_checkpointing={value}", *overrides)
        return cells(made, "single")[1].record.reason

    compiled = ("workloads.lstm.model={kind: transformer, d_model: 16, heads: 4}", "workloads.lstm.compile=true")
    assert "hides the operations of a block" in reason("selective", *compiled)
    assert "an LSTM's products lie inside of one kernel" in reason("selective")
    assert "from a GPU to the host" in reason("offloaded")
    assert {reason(value, *changes) for value in ("full", "{every: 2}") for changes in ((), compiled)} == {None}


def test_a_loss_in_chunks_needs_no_loss_scale(plan):
    bf16, fp16 = (plan("workloads.lstm.loss_chunks=2", f"workloads.lstm.precision={each}") for each in ("bf16", "fp16"))
    assert cells(bf16, "single")[1].layout is not None
    assert "before fp16 scales its loss" in cells(fp16, "single")[1].record.reason


def test_a_key_depends_on_compile_caches_only_where_something_is_compiled(plan):
    kept, compiled = "measure.compile_cache=kept", "workloads.lstm.compile=true"
    assert key_of(plan(kept)) == key_of(plan())
    assert key_of(plan(kept, compiled)) != key_of(plan(compiled)) != key_of(plan())


def test_a_key_does_not_depend_on_names_or_on_the_rest_of_the_scenario(plan, tmp_path):
    path = tmp_path / "renamed.yaml"
    path.write_text(GOOD.replace("lstm:", "renamed:").replace("  - task_pool\n", "  - model_parallel\n"))
    assert {key_of(plan())} <= {cell.record.key for cell in read_plan(path, machine()).cells}


def test_a_key_tells_the_kinds_of_devices_apart(plan):
    assert key_of(plan()) != key_of(plan(here=machine(4, gpus=4)))
    assert key_of(plan()) == key_of(plan(here=machine(2)))


def test_cells_share_a_reference_where_they_compute_the_same(plan):
    made = plan("scaling=[strong, weak]")
    strong = {cell.record.reference for cell in made.cells if cell.record.scaling == "strong"}
    weak = {cell.record.reference: cell.record.global_batch for cell in made.cells if cell.record.scaling == "weak"}
    assert len(strong) == 1
    assert sorted(weak.values()) == [32, 64, 128]
    assert strong < set(weak)
    assert not {cell.record.key for cell in made.cells} & set(weak)


@pytest.mark.parametrize("method", ["layout", "variants", "is_exact"])
def test_a_strategy_that_raises_anything_costs_its_own_cells_alone(plan, monkeypatch, method):
    def fails(*_):
        raise KeyError("of the strategy")

    whole = plan()
    monkeypatch.setattr(STRATEGIES["ddp"], method, fails)
    made = plan()
    assert {cell.record.strategy for cell in made.broken} == {"ddp"}
    assert [cell.record.id for cell in made.cells] == [cell.record.id for cell in whole.cells]
    assert {cell.record.reason for cell in made.broken} == {
        f"{method} failed: KeyError: 'of the strategy' (test_planner.py:{fails.__code__.co_firstlineno + 1})"
    }
    assert [cell.record.key for cell in made.runnable] == [
        cell.record.key for cell in whole.runnable if cell.record.strategy != "ddp"
    ]


def test_the_catalogue_holds_every_strategy_and_family():
    found = catalogue()
    assert list(found.options) == STRATEGIES.names()
    assert {"lstm", "transformer"} <= set(found.families)
    assert found.options["model_parallel"] is STRATEGIES["model_parallel"].options_type


@pytest.mark.parametrize(
    "scenario", sorted(Path(__file__).parents[2].glob("scenarios/*.yaml")), ids=lambda path: path.stem
)
@pytest.mark.parametrize(
    "here",
    [machine(1), machine(4), machine(3, gpus=1), machine(3, gpus=2), machine(3, gpus=8)],
    ids=["core", "cores", "gpu", "2 gpus", "8 gpus"],
)
def test_the_scenarios_that_come_along_can_be_planned_anywhere_or_say_what_they_need(scenario, here):
    if scenario.stem == "h100_single" and not here.gpus:
        with pytest.raises(ScenarioError, match="there is no CUDA device"):
            read_plan(scenario, here)
        return
    if scenario.stem == "slow_network":
        here = replace(here, nodes=2, granted=True)
    made = read_plan(scenario, here)
    assert any(cell.record.is_reference and cell.layout for cell in made.cells)
    assert len({cell.record.id for cell in made.cells}) == len(made.cells)


def test_an_lstm_is_not_run_in_fp16_where_bf16_is_asked_for(plan):
    made = plan("workloads.lstm.precision=[bf16, fp16]", "devices.kind=cuda", here=machine(4, gpus=1))
    reasons = {cell.record.precision: cell.record.reason for cell in made.cells if cell.record.strategy == "single"}
    assert reasons["fp16"] is None
    assert "casts LSTMs on CUDA to fp16" in reasons["bf16"]


@pytest.mark.parametrize(("phase", "passes"), [("train", 3), ("score", 1)])
def test_a_token_needs_a_forward_pass_and_for_training_a_backward_pass_of_twice_its_work(plan, phase, passes):
    cell = cells(plan(f"workloads.lstm.phase={phase}"), "single")[1]
    forward = 4 * 16 * 256**2 + 2 * 256 * cell.workload.vocab_size
    assert cell.record.flops_per_token == passes * forward


SHARED = 'strategies=["single", {"task_pool": {"tasks_per_device": [1, 2], "sharing": ["time", "mps", "streams"]}}]'


def test_mps_is_skipped_with_the_reason_where_it_cannot_be_started(plan):
    def reasons(here: Machine) -> dict[str, str | None]:
        made = plan(SHARED, "devices={kind: cuda, counts: [1]}", here=here)
        two = (cell.record for cell in made.cells if "tasks_per_device=2" in cell.record.label)
        return {record.label: record.reason for record in two}

    labels = [f"task_pool(tasks_per_device=2, sharing={sharing})" for sharing in ("time", "mps", "streams")]
    assert reasons(machine(gpus=1)) == dict(zip(labels, (None, NOT_STARTED, None), strict=True))
    there = replace(machine(gpus=1), no_mps=None)
    assert reasons(there) == dict.fromkeys(labels)


def test_on_cpu_nothing_but_time_is_shared(plan):
    made = plan(SHARED, "devices={kind: cpu, counts: [1]}")
    assert {cell.record.label for cell in made.runnable} == {
        "single",
        *(f"task_pool(tasks_per_device={tasks}, sharing=time)" for tasks in (1, 2)),
    }


def test_a_key_tells_how_a_gpu_is_shared_and_is_that_of_before_where_it_is_as_before(plan):
    def keys(options: str) -> list[str]:
        here = replace(machine(gpus=1), no_mps=None)
        made = plan(f"strategies=[{{task_pool: {options}}}]", "devices.kind=cuda", here=here)
        return [cell.record.key for cell in made.runnable]

    ways = [keys(f"{{tasks_per_device: 2, sharing: {sharing}}}") for sharing in ("time", "mps", "streams")]
    assert keys("{tasks_per_device: 2}") == ways[0]
    assert len({key for way in ways for key in way}) == 3


def test_an_option_that_older_versions_lack_leaves_the_keys_of_its_default_alone(plan):
    class Before(Options):
        width: int = 1

    class Now(Before):
        later_options = frozenset({"height"})
        height: int = 2

    def key(options: Options) -> str:
        made = plan()
        return cell_key.cell_key(made.scenario, made.cells[0].workload, "cpu", options=options)

    assert key(Before()) == key(Now()) == key(Now(height=2))
    assert len({key(Now()), key(Now(height=3)), key(Now(width=3))}) == 3
