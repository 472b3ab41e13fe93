"""Verdicts on made-up runs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from parbench.check import baselines
from parbench.check.compare import against_baseline, confirmed
from parbench.check.observations import observe
from parbench.check.rows import document
from parbench.check.two_arms import against_arm
from parbench.errors import BaselineError, ParbenchError
from parbench.export.markdown import Markdown
from parbench.figures.definitions import gated_figures
from parbench.records.energy import EnergyRecord, PackageReadings, counted
from parbench.records.trial import TrafficRecord, Trial
from parbench.results.store import Run
from parbench.scenario.specs import CheckSpec
from tests.support import records
from tests.support.check_runs import CALM, DDP, SINGLE, SPEED, check, run, verdicts


def test_every_figure_that_check_compares_can_gate_and_no_other() -> None:
    assert set(CheckSpec(gate=tuple(gated_figures())).gate) == set(gated_figures())
    with pytest.raises(ValidationError, match=r"Input should be 'tokens_per_s', .* or 'decode_tokens_per_s'"):
        CheckSpec(gate=("speedup",))


def test_a_launch_is_summarised_by_its_fastest_low_and_median_step() -> None:
    steps = (0.3, 0.1, 0.2, 0.4, 0.5)
    trial = records.trial(SINGLE, ranks=(records.rank(jobs=(records.job(step_times_s=steps),)),))
    values = observe(run(trials=[records.reference(SINGLE), trial], single=(1,), ddp=None))[SINGLE.id].metrics
    assert values["step_time_min_s"][0] == pytest.approx(0.1)
    assert values["step_time_p10_s"][0] == pytest.approx(0.14)
    assert values["step_time_s"][0] == pytest.approx(0.3)


def test_ratios_are_formed_within_a_round() -> None:
    values = observe(run(single=(1.0, 2.0), ddp=(0.5, 1.0)))[DDP.id].metrics
    assert values["relative_step_time"] == pytest.approx({0: 0.5, 1: 0.5})
    assert values["scaling_efficiency"] == pytest.approx({0: 1.0, 1: 1.0})


def test_of_several_references_the_first_is_the_base() -> None:
    other = records.cell(label="single(fused=true)", key="key of another")
    trials = [*run(single=(1.0, 1.0), ddp=(0.5, 0.5)).trials, *(records.trial(other, n, window_s=8.0) for n in (0, 1))]
    values = observe(run(single=(1.0, 1.0), cells=[SINGLE, other, DDP], trials=trials))[DDP.id].metrics
    assert values["relative_step_time"] == pytest.approx({0: 0.5, 1: 0.5})


def test_another_scenario_is_said_and_what_measures_the_same_compared(tmp_path: Path) -> None:
    report = check(run("second", check={"alpha": 0.01}), tmp_path)
    assert report.exit_code(strict=True) == 0
    assert any("scenario is not that of the newest session" in note for note in report.notes)
    assert not any("scenario" in note for note in check(run("third"), tmp_path / "b").notes)


def test_an_unchanged_run_is_fine(tmp_path: Path) -> None:
    report = check(run("second"), tmp_path)
    assert report.exit_code(strict=True) == 0
    assert set(verdicts(report).values()) == {"ok"}
    assert "sessions" in report.notes[0]


def test_a_slower_cell_regresses_and_comes_first(tmp_path: Path) -> None:
    report = check(run("second", ddp=[1.5 * each for each in CALM]), tmp_path)
    assert report.exit_code(strict=False) == 1
    assert verdicts(report) == {SINGLE.id: "ok", DDP.id: "regressed"}
    first = report.findings[0]
    assert (first.cell, first.verdict) == (DDP.id, "regressed")
    assert first.ratio == pytest.approx(1.5)
    steps = next(each for each in report.of("regressed") if each.metric == "step_time_min_s")
    assert steps.low is not None
    assert steps.low < 1.5 < (steps.high or 0)


def test_a_faster_cell_improves_which_is_fine(tmp_path: Path) -> None:
    report = check(run("second", ddp=[0.5 * each for each in CALM]), tmp_path)
    assert verdicts(report)[DDP.id] == "improved"
    assert report.exit_code(strict=True) == 0


def test_many_sessions_are_the_yardstick_of_a_new_one(tmp_path: Path) -> None:
    stored = [run(f"s{n}", single=[(1 + 0.02 * (n % 3)) * each for each in CALM]) for n in range(10)]
    report = check(run("new", single=[1.3 * each for each in CALM]), tmp_path, *stored)
    finding = next(each for each in report.findings if each.metric == "step_time_min_s" and each.cell == SINGLE.id)
    assert (finding.method, finding.verdict) == ("between sessions", "regressed")
    assert report.notes == ()


def test_noise_that_hides_what_should_be_found_is_inconclusive_and_says_what_would_do(tmp_path: Path) -> None:
    wild = (1.0, 1.5, 0.7, 1.3, 0.8)
    report = check(run("second", single=wild, ddp=wild), tmp_path, run(single=wild, ddp=wild))
    assert verdicts(report)[DDP.id] == "inconclusive"
    assert report.exit_code(strict=False) == 0
    assert report.exit_code(strict=True) == 5
    reason = next(each.reason for each in report.findings if each.metric == "step_time_min_s")
    assert re.search(r"; more rounds needed: (\d+) in the run, \1 in the baseline$", str(reason))


def test_throughput_has_a_wider_margin_of_its_own_unless_the_scenario_says_otherwise() -> None:
    assert CheckSpec().margin_of("tokens_per_s") == 0.05 > CheckSpec().margin_of("step_time_min_s")
    assert CheckSpec(margin=0.1).margin_of("tokens_per_s") == 0.1
    assert CheckSpec(margins={"tokens_per_s": 0.01}).margin_of("tokens_per_s") == 0.01


def test_margins_come_from_the_scenario(tmp_path: Path) -> None:
    slower, wide = [1.2 * each for each in CALM], {"margin_few_sessions": 0.5, "min_effect": 1.0}
    assert check(run("second", ddp=slower), tmp_path / "a").exit_code(strict=False) == 1
    assert check(run("second", ddp=slower, check=wide), tmp_path / "b").exit_code(strict=False) == 0


def with_energy(trial: Trial, joules: float) -> Trial:
    """The trial, in whose windows the machine's packages used so much."""
    energy = EnergyRecord(seconds=2.0, packages=PackageReadings(machine="m", energy_j=counted(joules)))
    return trial.model_copy(update={"ranks": tuple(rank.model_copy(update={"energy": energy}) for rank in trial.ranks)})


def test_energy_decides_only_where_the_scenario_says_so(tmp_path: Path) -> None:
    def used(joules: float, name: str, **changes: object) -> Run:
        made = run(name, **changes)
        return replace(made, trials=tuple(with_energy(trial, joules * CALM[trial.round]) for trial in made.trials))

    advisory = check(used(200.0, "second"), tmp_path / "a", used(100.0, "first"))
    assert verdicts(advisory, "energy_per_token_j") == {SINGLE.id: "regressed", DDP.id: "regressed"}
    assert advisory.exit_code(strict=False) == 0
    gate = {"gate": ["energy_per_token_j"]}
    gated = check(used(200.0, "second", check=gate), tmp_path / "b", used(100.0, "first"))
    assert gated.exit_code(strict=False) == 1
    assert "39.1 mJ" in Markdown().write(document(gated))


def test_counts_must_be_equal_exactly(tmp_path: Path) -> None:
    report = check(run("second", parameters=1_000_001), tmp_path, run(parameters=1_000_000))
    assert verdicts(report, "parameters")[DDP.id] == "regressed"
    assert "was 1,000,000, is 1,000,001" in str(report.findings[0].reason)
    assert report.exit_code(strict=False) == 1


def test_what_ranks_say_to_each_other_must_stay_as_it_is(tmp_path: Path) -> None:
    silent, talking = TrafficRecord(calls=0, given_bytes=0), TrafficRecord(calls=2, given_bytes=4096)
    same = check(run("second", traffic=silent), tmp_path / "a", run(traffic=silent))
    assert verdicts(same, "collectives") == {SINGLE.id: "ok", DDP.id: "ok"}
    more = check(run("second", traffic=talking), tmp_path / "b", run(traffic=silent))
    assert verdicts(more, "communicated_bytes") == {SINGLE.id: "regressed", DDP.id: "regressed"}
    assert more.exit_code(strict=False) == 1
    assert "must not change: was 0, is 4,096" in Markdown().write(document(more))


def test_a_metric_that_one_arm_has_lost_is_never_green() -> None:
    names = [SINGLE, DDP]
    base = run("base")
    lost = [trial for trial in base.trials if trial.cell != SINGLE.id or trial.purpose == "reference"]
    report = against_arm(run("candidate", cells=names, trials=lost), base, "A/B")
    assert report.exit_code(strict=False) == 3
    assert verdicts(report, "relative_step_time")[DDP.id] == "missing"


@pytest.mark.parametrize("status", ["failed", "killed", "out_of_memory", "timed_out"])
def test_a_failed_cell_is_never_green(status: str, tmp_path: Path) -> None:
    fresh = run("second")
    bad = records.trial(DDP, 4, status=status, reason="because")
    fresh = run("second", trials=[*fresh.trials[:-1], bad])
    report = check(fresh, tmp_path)
    assert report.exit_code(strict=False) == 3
    assert report.of("failed")[0].cell == DDP.id


def test_a_cell_that_vanished_is_never_green_and_a_new_one_is_named(tmp_path: Path) -> None:
    report = check(run("second", ddp=None), tmp_path / "a")
    assert report.exit_code(strict=False) == 3
    assert report.of("missing")[0].cell == DDP.id
    report = check(run("second"), tmp_path / "b", run(ddp=None))
    assert report.exit_code(strict=True) == 0
    assert report.of("new")[0].cell == DDP.id


def test_another_workload_under_the_same_name_is_not_comparable(tmp_path: Path) -> None:
    other = DDP.model_copy(update={"key": "another"})
    trials = [trial.model_copy(update={"key": "another"}) if trial.key == DDP.key else trial for trial in run().trials]
    report = check(run("second", cells=[SINGLE, other], trials=trials), tmp_path)
    assert report.of("not comparable")[0].cell == DDP.id
    assert report.exit_code(strict=False) == 4


def test_a_gate_on_nothing_is_not_green(tmp_path: Path) -> None:
    report = check(run("second", single=(1,), ddp=(1,)), tmp_path, run(single=(1,), ddp=(1,)))
    assert report.exit_code(strict=False) == 3
    assert "measure at least 2" in str(report.of("inconclusive")[0].reason)
    assert "No cell could be judged" in str(report.problem)


def test_a_foreign_environment_lists_what_differs_and_lets_only_ratios_through(tmp_path: Path) -> None:
    elsewhere = {**SPEED, "torch": "2.12.0", "variables": {}}
    report = check(run("second", speed=elsewhere), tmp_path / "a")
    assert report.exit_code(strict=False) == 4
    assert [str(each) for each in report.foreign] == [
        'torch: "2.13.0" in the baseline, "2.12.0" now',
        'variables.LD_PRELOAD: "x" in the baseline, nothing now',
    ]
    assert set(verdicts(report).values()) == {"not comparable"}
    assert check(run("second", speed=elsewhere), tmp_path / "b", portable=True).exit_code(strict=False) == 0
    slower = run("second", speed=elsewhere, ddp=[2 * each for each in CALM])
    assert check(slower, tmp_path / "c", portable=True).exit_code(strict=False) == 1


def test_what_was_saved_last_is_what_must_not_change(tmp_path: Path) -> None:
    """A change that was meant is saved, and is no regression from then on."""
    stored = [run("before", parameters=900), run("meant", parameters=1000)]
    assert verdicts(check(run("again"), tmp_path, *stored), "parameters") == {SINGLE.id: "ok", DDP.id: "ok"}


def test_a_cell_that_the_scenario_lost_is_asked_for_until_a_session_without_it_is_saved(tmp_path: Path) -> None:
    alone = run("alone", ddp=None)
    without = replace(alone, record=alone.record.model_copy(update={"scenario": {"name": "made_up", "strategies": []}}))
    assert check(without, tmp_path, run()).exit_code(strict=False) == 3
    again = replace(without, record=without.record.model_copy(update={"id": "again"}))
    assert check(again, tmp_path / "saved", run(), without).exit_code(strict=False) == 0


def test_a_folder_that_is_used_again_holds_another_run(tmp_path: Path) -> None:
    later = run()
    later = replace(later, record=later.record.model_copy(update={"created_at": "2031-01-01T00:00:00+00:00"}))
    assert check(later, tmp_path, run()).exit_code(strict=False) == 0


def test_what_could_not_be_checked_against_the_reference_is_never_green(tmp_path: Path) -> None:
    fresh = run("second", trials=[each for each in run("second").trials if each.purpose != "reference"])
    report = check(fresh, tmp_path)
    assert {each.verdict for each in report.findings if each.gated} == {"failed"}
    assert report.exit_code(strict=False) == 3


def test_what_neither_arm_can_do_is_no_failure_and_what_one_cannot_is() -> None:
    skipped = DDP.model_copy(update={"reason": "has too few layers"})
    names = [SINGLE, skipped]
    trials = [each for each in run().trials if each.cell == SINGLE.id]
    neither = [run(name, cells=names, trials=trials) for name in ("candidate", "base")]
    assert against_arm(*neither, "A/B").exit_code(strict=False) == 0
    assert against_arm(neither[0], run("base"), "A/B").exit_code(strict=False) == 3


def test_only_checks_what_it_names(tmp_path: Path) -> None:
    assert check(run("second", ddp=None), tmp_path / "a", only=["lstm/single/*"]).exit_code(strict=False) == 0
    two = [records.cell("fsdp", 2), records.cell("averaging", 2)]
    stored = run(
        cells=[SINGLE, *two], trials=[*run(ddp=None).trials, *(records.trial(c, n) for c in two for n in range(5))]
    )
    missing = check(run("second", ddp=None), tmp_path / "c", stored).of("missing")
    assert [finding.cell for finding in missing] == [cell.id for cell in two], "in the baseline's order"
    both = check(run("second", ddp=None), tmp_path / "d", only=["lstm/single/*", "lstm/ddp/*"])
    assert [finding.cell for finding in both.of("missing")] == [DDP.id]


def test_what_both_runs_together_do_not_confirm_is_no_regression(tmp_path: Path) -> None:
    unlucky, calm = run("second", ddp=[1.2 * each for each in CALM]), run("third", ddp=[0.9 * each for each in CALM])
    slow, baseline = check(unlucky, tmp_path), baselines.load("mine", tmp_path)
    assert slow.exit_code(strict=False) == 1
    assert confirmed(slow, against_baseline(unlucky, baseline, again=unlucky)).exit_code(strict=False) == 1
    report = confirmed(slow, against_baseline(unlucky, baseline, again=calm))
    assert report.exit_code(strict=False) == 0
    step = next(each for each in report.of("inconclusive") if each.metric == "step_time_min_s")
    assert "both runs together do not confirm" in str(step.reason) or "more rounds needed" in str(step.reason)
    assert step.rounds == 2 * len(CALM)


def test_a_real_change_of_ten_per_cent_that_looks_smaller_the_second_time_is_not_cleared(tmp_path: Path) -> None:
    """A second estimate at the margin is no proof that there is no change: both runs together still show one."""
    first, second = run("second", ddp=[1.12 * each for each in CALM]), run("third", ddp=[1.05 * each for each in CALM])
    slow, baseline = check(first, tmp_path), baselines.load("mine", tmp_path)
    assert slow.exit_code(strict=False) == 1
    assert confirmed(slow, against_baseline(first, baseline, again=second)).exit_code(strict=False) == 1


def test_a_second_run_of_two_arms_counts_as_further_rounds() -> None:
    base, slow = run("base"), run("candidate", ddp=[1.2 * each for each in (1.0, 1.02, 0.98, 1.01, 0.99)])
    report = against_arm(slow, base, "A/B")
    assert report.exit_code(strict=False) == 1
    again = (run("candidate", ddp=[0.95 * each for each in CALM]), base)
    assert confirmed(report, against_arm(slow, base, "A/B", again=again)).exit_code(strict=False) == 0
    assert confirmed(report, against_arm(slow, base, "A/B", again=(slow, base))).exit_code(strict=False) == 1


@pytest.mark.parametrize(
    "again",
    [
        run("third", ddp=None),
        run("third", trials=[*run().trials[:-1], records.trial(DDP, 4, status="failed", reason="because")]),
    ],
    ids=["vanished", "failed"],
)
def test_a_second_run_that_judged_nothing_clears_nothing(again: Run, tmp_path: Path) -> None:
    fresh = run("second", ddp=[1.5 * each for each in CALM])
    slow = check(fresh, tmp_path)
    report = confirmed(slow, against_baseline(fresh, baselines.load("mine", tmp_path), again=again))
    assert report.exit_code(strict=False) == 1
    assert verdicts(report)[DDP.id] == "regressed"


def test_a_run_of_fewer_rounds_than_its_sessions_is_not_compared(tmp_path: Path) -> None:
    stored = [run(f"s{number}", single=[(1 + 0.02 * (number % 3)) * each for each in CALM]) for number in range(10)]
    for rounds in (1, 2, 4):
        fresh = run("new", single=(1.0,) * rounds, ddp=(1.0,) * rounds)
        report = check(fresh, tmp_path / str(rounds), *stored)
        assert report.exit_code(strict=False) == 3
        assert {finding.reason for finding in report.of("inconclusive")} == {
            f"the run has {rounds} rounds, its sessions 5: measure with --rounds 5"
        }
    more = run("new", single=[*CALM, *CALM], ddp=[*CALM, *CALM])
    assert check(more, tmp_path / "more", *stored).exit_code(strict=False) == 0


def test_a_gate_on_counts_alone_judges(tmp_path: Path) -> None:
    counts = {"gate": ["parameters"]}
    assert check(run("second", check=counts), tmp_path / "a").exit_code(strict=False) == 0
    report = check(run("second", check=counts, parameters=1), tmp_path / "b")
    assert report.exit_code(strict=False) == 1


def test_the_section_of_a_scenario_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="larger than every margin"):
        CheckSpec(min_effect=0.04)
    assert issubclass(BaselineError, ParbenchError)
