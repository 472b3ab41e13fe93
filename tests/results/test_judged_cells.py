"""One judge of a cell: the table and `check` follow the same verdicts and form ratios over the same base."""

import pytest

from parbench.check.observations import observe
from parbench.figures.definitions import FIGURES
from parbench.figures.statistics import RoundId, summarise
from parbench.records.trial import Trial
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
    assert [base.trial.cell for launch in cells[-1].launches for base in launch.bases] == [other.id] * 2


def test_a_cell_that_is_not_comparable_has_no_base():
    cells = judge_cells(run([SINGLE, DDP], [reference(SINGLE), trial(SINGLE), trial(DDP, status="failed")]))
    assert [each.comparable for each in cells] == [True, False]
    assert cells[0].base is not None
    assert cells[1].base is None
    assert not cells[1].launches


BASE_WINDOWS = ((2.0, 8.0), (4.0, 1.0), (2.0, 2.0))
"""The windows of the base's two launches in each of three rounds; their geometric means are 4, 2 and 2 seconds."""


def two_bases_a_round(*more: Trial) -> Run:
    single = [
        trial(SINGLE, number, repeat=repeat, window_s=window_s)
        for number, windows in enumerate(BASE_WINDOWS)
        for repeat, window_s in enumerate(windows)
    ]
    ddp = [trial(DDP, number, window_s=1.0) for number in range(3)]
    return run([SINGLE, DDP], [reference(SINGLE), *single, *ddp, *more], rounds=3)


def test_ratios_are_over_the_geometric_mean_of_the_bases_launches_in_the_same_round():
    single, ddp = judge_cells(two_bases_a_round())
    by_round = ddp.values_by_round(FIGURES["speedup"])
    assert by_round == pytest.approx({RoundId(0, 0): 4.0, RoundId(0, 1): 2.0, RoundId(0, 2): 2.0})
    assert ddp.values_by_round(FIGURES["relative_step_time"]) == pytest.approx(
        {RoundId(0, 0): 1 / 4, RoundId(0, 1): 1 / 2, RoundId(0, 2): 1 / 2}
    )
    assert set(single.values_by_round(FIGURES["speedup"]).values()) == {1.0}, "it is its own base, launch by launch"


def test_of_the_base_itself_a_round_is_one_observation():
    table = cells_table(two_bases_a_round())
    row = table.to_dict(orient="records")[0]
    mean = summarise([10 * 8 * 64 / window_s for window_s in (4.0, 2.0, 2.0)])
    assert (row["tokens_per_s"], row["tokens_per_s_ci_low"], row["tokens_per_s_ci_high"]) == pytest.approx(mean)
    assert (row["speedup"], row["speedup_ci_low"], row["speedup_ci_high"]) == (1.0, 1.0, 1.0)
    assert (row["rounds"], row["launches"], row["reason"]) == (3, 6, None)


def test_check_sees_a_value_a_round_and_of_what_must_not_change_the_value_of_every_launch():
    more_parameters = (rank(jobs=(job(parameters=1001),)),)
    odd = trial(SINGLE, 2, repeat=2, window_s=2.0, ranks=more_parameters)
    metrics = observe(two_bases_a_round(odd))[SINGLE.id].metrics
    assert metrics["tokens_per_s"] == pytest.approx({0: 1280, 1: 2560, 2: 2560})
    assert sorted(metrics["parameters"].values()) == [1000.0] * 6 + [1001.0]


def test_a_round_without_a_base_has_no_ratio_and_one_with_a_part_of_its_launches_has():
    single = [trial(SINGLE, 0), trial(SINGLE, 0, repeat=1), trial(SINGLE, 1)]
    ddp = [trial(DDP, number, window_s=1.0) for number in range(3)]
    cells = judge_cells(run([SINGLE, DDP], [reference(SINGLE), *single, *ddp], rounds=3))
    assert set(cells[1].values_by_round(FIGURES["speedup"])) == {RoundId(0, 0), RoundId(0, 1)}
    assert cells[0].reason == "only 2 of 3 rounds were measured"


def test_rounds_are_counted_and_not_launches_where_one_failed():
    failed = trial(SINGLE, 1, repeat=2, status="failed", reason="fell over")
    cells = judge_cells(two_bases_a_round(failed))
    assert (cells[0].status, cells[0].reason) == ("failed", "fell over (1 of 3 rounds)")
    assert cells[1].base is None
