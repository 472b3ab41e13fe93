"""What the reference explains is no regression of a cell."""

from dataclasses import replace
from pathlib import Path

from parbench.records.trial import RankRecord
from parbench.results.store import Run
from tests.support.check_runs import CALM, DDP, SINGLE, SPEED, check, run, verdicts

SLOWER = [1.3 * each for each in CALM]


def test_a_slower_machine_is_no_regression_and_is_told(tmp_path: Path) -> None:
    report = check(run("second", single=SLOWER, ddp=SLOWER), tmp_path)
    assert verdicts(report) == {SINGLE.id: "inconclusive", DDP.id: "inconclusive"}
    assert verdicts(report, "relative_step_time") == {DDP.id: "ok"}
    (reason,) = {finding.reason for finding in report.findings if finding.metric == "step_time_min_s"}
    assert str(reason).startswith("slower, but so is the reference")
    assert (report.exit_code(strict=False), report.exit_code(strict=True)) == (0, 5)


def test_a_cell_that_lost_more_than_its_reference_has_regressed(tmp_path: Path) -> None:
    report = check(run("second", single=SLOWER, ddp=[1.5 * each for each in SLOWER]), tmp_path)
    assert verdicts(report) == {SINGLE.id: "inconclusive", DDP.id: "regressed"}
    assert verdicts(report, "relative_step_time") == {DDP.id: "regressed"}
    assert report.exit_code(strict=False) == 1


def test_a_cell_that_got_slower_alone_has_regressed(tmp_path: Path) -> None:
    report = check(run("second", ddp=SLOWER), tmp_path)
    assert verdicts(report) == {SINGLE.id: "ok", DDP.id: "regressed"}


def test_a_reference_that_got_slower_alone_has_regressed(tmp_path: Path) -> None:
    report = check(run("second", single=SLOWER), tmp_path)
    assert verdicts(report) == {SINGLE.id: "regressed", DDP.id: "ok"}
    assert verdicts(report, "relative_step_time") == {DDP.id: "improved"}
    assert report.exit_code(strict=False) == 1


def test_a_loss_of_throughput_that_the_fastest_step_does_not_see_is_weighed_against_the_references(
    tmp_path: Path,
) -> None:
    """Its ratio is of fastest steps; the window took half as long again as the reference's in both."""
    fresh = run("second", single=SLOWER, ddp=SLOWER)
    stalled = [
        trial.model_copy(update={"ranks": tuple(map(_stalled, trial.ranks))}) if trial.cell == DDP.id else trial
        for trial in fresh.trials
    ]
    report = check(replace(fresh, trials=tuple(stalled)), tmp_path)
    assert verdicts(report, "relative_step_time") == {DDP.id: "ok"}
    assert verdicts(report, "tokens_per_s") == {SINGLE.id: "inconclusive", DDP.id: "regressed"}


def _stalled(rank: RankRecord) -> RankRecord:
    jobs = tuple(job.model_copy(update={"window_s": 1.5 * job.window_s}) for job in rank.jobs)
    return rank.model_copy(update={"jobs": jobs})


def test_cells_that_were_not_asked_about_are_witnesses(tmp_path: Path) -> None:
    report = check(run("second", single=SLOWER, ddp=SLOWER), tmp_path, only=["*/ddp/*"])
    assert verdicts(report) == {DDP.id: "inconclusive"}
    assert report.exit_code(strict=False) == 0


def test_without_a_ratio_the_times_decide(tmp_path: Path) -> None:
    report = check(run("second", single=SLOWER, ddp=None), tmp_path, run(ddp=None))
    assert verdicts(report) == {SINGLE.id: "regressed"}
    assert report.exit_code(strict=False) == 1


def test_many_sessions_know_how_a_machine_varies(tmp_path: Path) -> None:
    stored = [run(f"s{n}", single=[(1 + 0.02 * (n % 3)) * each for each in CALM]) for n in range(10)]
    report = check(run("new", single=SLOWER, ddp=SLOWER), tmp_path, *stored)
    assert set(verdicts(report).values()) == {"regressed"}


FASTER = [0.8 * each for each in CALM]


def sessions() -> list[Run]:
    return [run(f"s{n}", single=[(1 + 0.02 * (n % 3)) * each for each in CALM]) for n in range(10)]


def test_a_better_reference_is_no_regression_of_the_others(tmp_path: Path) -> None:
    """Few sessions cannot tell it from a machine that is faster today and a cell that is slower."""
    report = check(run("second", single=FASTER), tmp_path)
    assert verdicts(report) == {SINGLE.id: "improved", DDP.id: "ok"}
    assert verdicts(report, "relative_step_time") == {DDP.id: "inconclusive"}
    reason = next(each.reason for each in report.findings if each.metric == "relative_step_time")
    assert "Few sessions cannot tell" in str(reason)
    assert (report.exit_code(strict=False), report.exit_code(strict=True)) == (0, 5)


def test_many_sessions_tell_a_better_reference_from_a_worse_cell(tmp_path: Path) -> None:
    report = check(run("new", single=FASTER), tmp_path / "better", *sessions())
    assert verdicts(report, "relative_step_time") == {DDP.id: "ok"}
    assert report.exit_code(strict=True) == 0
    report = check(run("new", single=FASTER, ddp=SLOWER), tmp_path / "worse", *sessions())
    assert verdicts(report, "relative_step_time") == {DDP.id: "regressed"}


def test_a_cell_whose_own_time_cannot_be_told_leaves_the_ratio_open(tmp_path: Path) -> None:
    """The reference is better for certain; the cell's interval holds both no change and more than its margin."""
    wide = (0.88, 1.12, 0.95, 1.05, 1.0)
    spec = {"gate": ["relative_step_time"], "min_effect": 2.0}
    report = check(run("second", single=[0.4 * each for each in CALM], ddp=wide, check=spec), tmp_path)
    assert verdicts(report)[DDP.id] == "ok"
    assert verdicts(report, "relative_step_time") == {DDP.id: "inconclusive"}
    reason = next(each.reason for each in report.findings if each.metric == "relative_step_time")
    assert str(reason).startswith("the reference got better, and the cell itself is not measurably worse")


def test_a_slower_cell_beside_a_faster_reference_has_regressed_in_both(tmp_path: Path) -> None:
    report = check(run("second", single=FASTER, ddp=SLOWER), tmp_path)
    assert verdicts(report)[DDP.id] == "regressed"
    assert verdicts(report, "relative_step_time") == {DDP.id: "regressed"}


def test_in_a_foreign_environment_ratios_are_all_there_is(tmp_path: Path) -> None:
    report = check(run("second", single=FASTER, speed={**SPEED, "torch": "1"}), tmp_path, portable=True)
    assert verdicts(report, "relative_step_time") == {DDP.id: "regressed"}
    assert report.exit_code(strict=False) == 1
