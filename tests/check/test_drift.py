"""While sessions are few: what got slower together with its reference is left open."""

from dataclasses import replace
from pathlib import Path

from parbench.records.trial import RankRecord
from tests.support.check_runs import CALM, DDP, SINGLE, check, run, verdicts

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
