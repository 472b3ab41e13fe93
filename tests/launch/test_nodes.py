"""A scenario on several nodes: which cells there are, where their parts lie, and what is skipped for which reason."""

import math

import pytest

from parbench.errors import UsageError
from parbench.figures import several_models
from parbench.launch.base import Campaign, Outcome
from parbench.launch.failure_cause import find_cause
from parbench.launch.own_cores import with_own_cores
from parbench.plan.cells import Cell
from parbench.plan.reading import read_plan
from parbench.records.assignment import Assignment
from parbench.records.trial import Failure
from parbench.report.drawing.scaling import node_boundary
from parbench.report.panels import view_runs
from parbench.system.devices import Machine
from tests.support.records import assignment, cell, job, rank, run, trial

SCENARIO = """\
workloads:
  gpt:
    model: {kind: transformer, layers: 4, d_model: 32, heads: 4}
    global_batch: 32
strategies: [single, data_parallel, ddp, hybrid]
"""


@pytest.fixture
def cells(tmp_path):
    """The cells of the scenario above, by strategy's label and devices, on nodes of two cores each."""

    def of(nodes: int, *overrides: str, cores: int = 2) -> dict[tuple[str, int], Cell]:
        path = tmp_path / "nodes.yaml"
        path.write_text(SCENARIO)
        machine = Machine(cores=tuple((cpu,) for cpu in range(cores)), nodes=nodes, granted=nodes > 1)
        return {(each.record.label, each.record.devices): each for each in read_plan(path, machine, overrides).cells}

    return of


def test_devices_fill_a_node_before_there_is_a_second_one(cells):
    found = {count: each.devices.nodes for (label, count), each in cells(4).items() if label == "ddp"}
    assert found == {1: 1, 2: 1, 4: 2, 8: 4}
    assert {count for label, count in cells(2, cores=3) if label == "ddp"} == {1, 2, 6}


def test_one_process_cannot_have_devices_on_two_nodes(cells):
    found = cells(2)
    assert found["data_parallel", 2].layout is not None
    assert found["data_parallel", 4].record.reason == "one process drives 4 devices, and a node has 2 of them"


def test_what_was_not_granted_is_skipped_and_on_one_machine_a_mistake(cells):
    found = cells(2, "devices.counts=[3, 8]")
    assert found["ddp", 8].record.reason == "needs 8 devices; granted are 2 × 2"
    assert found["ddp", 3].record.reason == "3 devices cannot be shared equally by 2 nodes"


def test_tensor_parallelism_stays_inside_a_node_and_data_parallelism_reaches_across(cells):
    layouts = {label: each.record.layout for (label, count), each in cells(2).items() if count == 4 and each.layout}
    assert "4 processes on 2 nodes, 2 data shards, data 2 across nodes × pipeline 1 × tensor 2" in layouts.values()
    assert not any("tensor 4" in label or "tensor=4" in label for label in layouts)
    alone = {label for label, count in cells(1, cores=4) if count == 4}
    assert any("tensor=4" in label for label in alone)


def test_cells_on_one_node_keep_the_key_that_they_had_before_there_were_several(cells):
    alone, several = cells(1, cores=4), cells(2)
    assert alone["ddp", 2].record.key == several["ddp", 2].record.key
    assert alone["ddp", 4].record.key != several["ddp", 4].record.key


def test_every_node_has_cores_data_and_folder_of_its_own(tmp_path):
    here = Machine(cores=((4, 5), (6, 7)))
    record = Assignment.model_validate_json((ASSIGNMENT % "/elsewhere/a.tokens").encode())
    mine = record.corpus.model_copy(update={"path": "/here/a.tokens"})
    scenario = {"devices": {"cores_per_device": 1}, "workloads": {"gpt": record.workload}}
    campaign = Campaign(scenario=scenario, folder=tmp_path, corpora={"gpt": mine}, machine=here)
    found = campaign.localize(record)
    assert (found.cores, found.corpus.path, found.folder) == (((4, 5), (6, 7)), "/here/a.tokens", str(tmp_path))


def test_every_node_pins_its_ranks_beside_its_own_gpus_where_node_0_pins_its():
    here = Machine(cores=((4,), (5,), (6,), (7,)), gpus=2, gpu_cpus=((6, 7), (4, 5)))
    on_gpus = assignment(device_kind="cuda", devices=4, nodes=2, cores=(), rank_cores=((0, 1), (2, 3)))
    assert with_own_cores(on_gpus, here, 1).rank_cores == ((6, 7), (4, 5))
    assert with_own_cores(on_gpus.model_copy(update={"rank_cores": ()}), here, 1).rank_cores == ()
    hidden = Machine(cores=here.cores, gpus=2)
    assert with_own_cores(on_gpus, hidden, 1).rank_cores == ()


def test_a_model_or_data_that_is_not_in_a_nodes_own_scenario_is_refused_whoever_asks(tmp_path):
    record = Assignment.model_validate_json((ASSIGNMENT % "a").encode())
    scenario = {"devices": {"cores_per_device": 1}, "workloads": {"gpt": record.workload}}
    corpora = {"gpt": record.corpus}
    campaign = Campaign(scenario=scenario, folder=tmp_path, corpora=corpora, machine=Machine(cores=((0,), (1,))))
    theirs = {"model": {"kind": "custom", "build": "os:system"}}
    other = record.corpus.model_copy(update={"sha256": "f" * 64})
    for changes in ({"workload": theirs}, {"workload": {}}, {"corpus": other}):
        with pytest.raises(UsageError, match="node 0 asks for c, whose model or data is not in the scenario of this"):
            campaign.localize(record.model_copy(update=changes))


ASSIGNMENT = """{
  "purpose": "measure", "cell": "c", "key": "k", "round": 0, "workload": {"model": {"kind": "lstm"}},
  "strategy": "ddp", "options": {},
  "device_kind": "cpu", "devices": 4, "nodes": 2, "threads": 1, "cores": [[0], [1]], "seed": 0, "warmup": 1,
  "window_s": 1.0, "validation_batches": 1, "deadline_s": 9.0,
  "corpus": {"path": "%s", "sha256": "0000000000000000000000000000000000000000000000000000000000000000",
             "tokens": 9, "vocab_size": 9, "dtype": "uint8"}
}"""


def test_failures_on_nodes_whose_clocks_differ_are_put_in_order_by_when_the_ranks_had_met():
    def failed(number: int, met_at: float, after_s: float):
        failure = Failure(error=f"Error: {number}", traceback="", out_of_memory=False, at=met_at + after_s)
        return rank(number, node=number, stage="window", met_at=met_at, failure=failure)

    ranks = (failed(0, met_at=5.0, after_s=3.0), failed(1, met_at=900.0, after_s=2.0))
    assert find_cause(Outcome(exit_codes=(1, 1), wall_s=9.0), ranks) == ("failed", "rank 1 failed in window: Error: 1")


def test_what_the_launcher_knows_comes_before_what_ranks_suffered_from_it():
    lost = Outcome(exit_codes=(1, None), wall_s=9.0, reason="node 1 (b) was lost")
    assert find_cause(lost, ()) == ("failed", "node 1 (b) was lost")
    assert find_cause(Outcome(exit_codes=(1,), wall_s=9.0, timed_out=True, reason="late"), ()) == ("timed_out", "late")


def test_the_makespan_does_not_subtract_clocks_of_different_nodes():
    near = rank(0, met_at=10.0, jobs=(job(0, started_s=11.0, stopped_s=13.0),))
    far = rank(1, met_at=500.0, jobs=(job(1, started_s=501.5, stopped_s=504.0),))
    assert several_models.makespan_s(trial(ranks=(near, far))) == pytest.approx(3.0)


def test_a_chart_has_a_boundary_where_cells_begin_to_need_a_second_node(tmp_path):
    scaling = [cell("single"), *(cell("ddp", count, nodes=max(1, count // 2)) for count in (1, 2, 4, 8))]
    trials = [trial(scaling[0], purpose="reference", key=scaling[0].reference), *map(trial, scaling)]
    (view,) = view_runs([run(scaling, trials)])
    assert node_boundary(view.panels[0]) == pytest.approx(math.sqrt(2 * 4))
    (alone,) = view_runs([run(scaling[:3], trials)])
    assert node_boundary(alone.panels[0]) is None
