"""One judge of a cell: the table and `check` follow the same verdicts and form ratios over the same base."""

import pytest

from parbench.check.observations import observe
from parbench.results.judged_cells import judge_cells
from parbench.results.store import Run
from parbench.results.tables import cells_table
from tests.support.records import cell, job, rank, reference, run, trial

GRAPHS = cell(label="single(cuda_graphs=True)", reason="CUDA graphs need a CUDA device")
SINGLE, DDP = cell(), cell("ddp", 2)


def run_of(*first: object, **changes: object) -> Run:
    trials = [trial(SINGLE, number) for number in range(2)] + [trial(DDP, number, window_s=1.0) for number in range(2)]
    return run([*first, SINGLE, DDP], [reference(SINGLE), *trials, *changes.get("more", ())], rounds=2)


@pytest.mark.parametrize(
    ("first", "trials"),
    [
        pytest.param(GRAPHS, [], id="skipped"),
        pytest.param(
            cell(label="single(fused=true)"),
            [trial(cell(label="single(fused=true)"), number, status="failed") for number in range(2)],
            id="failed",
        ),
        pytest.param(
            cell(label="single(fused=true)"),
            [
                trial(cell(label="single(fused=true)"), number, ranks=(rank(jobs=(job(losses=(9.0,) * 5),)),))
                for number in range(2)
            ],
            id="of other losses",
        ),
    ],
)
def test_a_first_reference_that_is_not_comparable_is_no_base_for_the_table_nor_for_check(first, trials):
    runs = run_of(first, more=trials)
    row = cells_table(runs).to_dict(orient="records")[-1]
    metrics = observe(runs)[DDP.id].metrics
    assert row["speedup"] == pytest.approx(2.0)
    assert metrics["relative_step_time"] == pytest.approx({0: 0.5, 1: 0.5})
    assert metrics["scaling_efficiency"] == pytest.approx({0: 1.0, 1: 1.0})
    assert {each.base.record.id for each in judge_cells(runs) if each.base} == {SINGLE.id}


def test_of_several_comparable_references_the_first_is_the_base():
    other = cell(label="single(fused=true)")
    cells = judge_cells(run_of(other, more=[trial(other, number, window_s=4.0) for number in range(2)]))
    assert {each.base.record.id for each in cells if each.base} == {other.id}
    assert [launch.base.trial.cell for launch in cells[-1].launches.values() if launch.base] == [other.id] * 2


def test_a_cell_that_is_not_comparable_has_no_base():
    cells = judge_cells(run([SINGLE, DDP], [reference(SINGLE), trial(SINGLE), trial(DDP, status="failed")]))
    assert [each.comparable for each in cells] == [True, False]
    assert cells[0].base is not None
    assert cells[1].base is None
    assert not cells[1].launches
