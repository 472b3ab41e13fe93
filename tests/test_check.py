"""Baselines, verdicts and outputs, on made-up runs."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import xmlschema
from rich.console import Console

from parbench.check import baselines, outputs
from parbench.check.compare import against_arm, against_baseline, confirmed
from parbench.check.decide import paired, within_run
from parbench.check.metrics import METRICS, observe
from parbench.check.verdicts import Report
from parbench.errors import BaselineError, NothingMeasuredError, ParbenchError, ResultsError, UsageError
from parbench.results.store import Run
from parbench.scenario import CheckSpec, MetricName
from tests import records

SPEED = {"cpu_model": "AMD EPYC", "physical_cores": 2, "torch": "2.13.0", "variables": {"LD_PRELOAD": "x"}}
SINGLE, DDP = records.cell(), records.cell("ddp", 2)
CALM = (1.0, 1.01, 0.99, 1.02, 0.98)
JUNIT = xmlschema.XMLSchema(Path(__file__).parent / "junit.xsd")


def run(
    name: str = "first",
    *,
    single: Sequence[float] = CALM,
    ddp: Sequence[float] | None = CALM,
    speed: dict[str, Any] = SPEED,
    check: dict[str, Any] | None = None,
    parameters: int = 1000,
    **changes: Any,
) -> Run:
    """A run whose cells' windows, and so their steps, took so long in each round."""
    cells = [SINGLE] + [DDP] * (ddp is not None)
    trials = [records.reference(SINGLE)]
    for cell, seconds in ((SINGLE, single), (DDP, ddp or ())):
        trials += [
            records.trial(
                cell,
                number,
                ranks=(records.rank(jobs=(records.job(window_s=2 * each, parameters=parameters),)),),
            )
            for number, each in enumerate(seconds)
        ]
    record = records.run_record(
        changes.pop("cells", cells),
        rounds=len(single),
        id=name,
        environment={"speed": speed, "context": {"host": name, "git_commit": "abc", "parbench": "0"}},
        scenario={"name": "made_up", **({"check": check} if check else {})},
    )
    return Run(Path(name), record, tuple(changes.pop("trials", trials)), ())


def check(fresh: Run, tmp_path: Path, *stored: Run, **options: Any) -> Report:
    for each in stored or (run(),):
        baseline = baselines.save(each, "mine", tmp_path)
    return against_baseline(fresh, baseline, **options)


def verdicts(report: Report, metric: MetricName = "step_time_min_s") -> dict[str, str]:
    return {finding.cell: finding.verdict for finding in report.findings if finding.metric == metric}


def test_every_metric_of_the_scenario_is_there_with_its_direction() -> None:
    assert set(METRICS) == set(MetricName.__args__)
    assert METRICS["tokens_per_s"].better == "higher"
    assert METRICS["step_time_min_s"].better == "lower"


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
    assert "more rounds in the run and in the baseline would do" in str(reason)


def test_margins_come_from_the_scenario(tmp_path: Path) -> None:
    slower, wide = [1.2 * each for each in CALM], {"margin_few_sessions": 0.5, "min_effect": 1.0}
    assert check(run("second", ddp=slower), tmp_path / "a").exit_code(strict=False) == 1
    assert check(run("second", ddp=slower, check=wide), tmp_path / "b").exit_code(strict=False) == 0


def test_counts_must_be_equal_exactly(tmp_path: Path) -> None:
    report = check(run("second", parameters=1_000_001), tmp_path, run(parameters=1_000_000))
    assert verdicts(report, "parameters")[DDP.id] == "regressed"
    assert "was 1,000,000, is 1,000,001" in str(report.findings[0].reason)
    assert report.exit_code(strict=False) == 1


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


def test_only_checks_what_it_names(tmp_path: Path) -> None:
    assert check(run("second", ddp=None), tmp_path / "a", only="lstm/single/*").exit_code(strict=False) == 0
    with pytest.raises(UsageError, match="no cell's id matches"):
        check(run("second"), tmp_path / "b", only="x")


def test_what_fresh_samples_do_not_confirm_is_no_regression(tmp_path: Path) -> None:
    slow = check(run("second", ddp=[1.5 * each for each in CALM]), tmp_path)
    calm = against_baseline(run("third"), baselines.load("mine", tmp_path))
    assert confirmed(slow, slow).exit_code(strict=False) == 1
    assert confirmed(slow, calm).exit_code(strict=False) == 0
    assert {finding.reason for finding in confirmed(slow, calm).of("inconclusive")} == {
        "fresh samples did not confirm the regression"
    }


def test_two_arms_are_compared_within_rounds() -> None:
    base = run("base", single=(1, 2, 3, 4, 5), ddp=(1, 2, 3, 4, 5))
    report = against_arm(run("candidate", single=(1, 2, 3, 4, 5), ddp=(1.31, 2.6, 3.9, 5.2, 6.5)), base, "A/B")
    assert verdicts(report) == {SINGLE.id: "ok", DDP.id: "regressed"}
    finding = next(each for each in report.of("regressed") if each.metric == "step_time_min_s")
    assert (finding.method, finding.ratio) == ("paired", pytest.approx(1.3, rel=0.01))
    assert finding.p_permutation == pytest.approx(1 / 2**5)


def test_tests_of_samples_without_spread_are_exact() -> None:
    assert within_run([2.0, 2.0], [1.0, 1.0], 0.05).p_worse == 0
    assert within_run([1.0, 1.0], [1.0, 1.0], 0.05).p_worse == 1
    assert within_run([1.0, 1.0], [1.0, 1.1], 0.05).p_worse > 0.5
    assert paired([0.0, 0.0], 0.05).interval == (0, 0)


# Baselines on disk.


def test_a_baseline_is_small_readable_and_comes_back(tmp_path: Path) -> None:
    kept = baselines.save(run(), "mine", tmp_path)
    text = (tmp_path / "mine.json").read_text()
    assert '"step_time_min_s": [0.2, 0.202, 0.198, 0.204, 0.196]' in text
    assert "first" not in json.loads(text)["environment"]
    assert baselines.load("mine", tmp_path) == kept
    assert baselines.list_baselines(tmp_path) == ["mine"]
    assert "session first" in "\n".join(baselines.describe(kept))


def test_sessions_are_added_and_the_oldest_drops_out(tmp_path: Path) -> None:
    for number in range(baselines.MAX_SESSIONS + 2):
        kept = baselines.save(run(f"run {number}"), "mine", tmp_path)
    assert kept.sessions[0].run == "run 2"
    assert len(kept.sessions) == baselines.MAX_SESSIONS
    assert not list(tmp_path.glob("*.tmp"))


def damaged(path: Path, how: str) -> None:
    text = path.read_text()
    content = json.loads(text)
    match how:
        case "missing":
            path.unlink()
        case "empty":
            path.write_text("")
        case "truncated":
            path.write_text(text[: len(text) // 2])
        case "edited":
            path.write_text(text.replace("0.202", "0.302"))
        case "newer":
            path.write_text(json.dumps({**content, "schema_version": 2}))
        case "nan":
            path.write_text(text.replace("0.202", "NaN"))
        case "list":
            path.write_text("[1]")
        case "binary":
            path.write_bytes(b"\xff\xfe\x00")
        case "field":
            path.write_text(json.dumps({**content, "sessions": 3}))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "there is no baseline 'mine'"),
        ("empty", "is empty"),
        ("truncated", "cut off"),
        ("edited", "digest is not that of its content"),
        ("newer", "schema version 2"),
        ("nan", "damaged at sessions.0.cells"),
        ("list", "no baseline"),
        ("binary", "cannot be read"),
        ("field", "damaged at sessions"),
    ],
)
def test_a_baseline_that_cannot_be_trusted_is_said(how: str, words: str, tmp_path: Path) -> None:
    baselines.save(run(), "mine", tmp_path)
    damaged(tmp_path / "mine.json", how)
    with pytest.raises(BaselineError, match=words):
        baselines.load("mine", tmp_path)


@pytest.mark.parametrize("name", ["../mine", "/etc/passwd", "", ".hidden", "a/b", "a\0b", "n" * 101, "é", "-x"])
def test_a_name_never_becomes_another_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name for a baseline"):
        baselines.save(run(), name, tmp_path)
    with pytest.raises(UsageError, match="no name for a baseline"):
        baselines.load(name, tmp_path)


def test_what_cannot_be_saved_is_refused_with_a_sentence(tmp_path: Path) -> None:
    baselines.save(run(), "mine", tmp_path)
    with pytest.raises(UsageError, match="already"):
        baselines.save(run(), "mine", tmp_path)
    with pytest.raises(UsageError, match="another environment"):
        baselines.save(run("second", speed={**SPEED, "torch": "1"}), "mine", tmp_path)
    with pytest.raises(NothingMeasuredError, match="nothing to keep"):
        baselines.save(run("third", trials=[]), "mine", tmp_path)
    with pytest.raises(ResultsError, match="environment"):
        baselines.save(records.run([SINGLE], run().trials, rounds=5), "other", tmp_path)


def test_a_run_is_not_checked_against_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="measure again"):
        check(run("first"), tmp_path)


# Outputs.

NASTY = "\x1b[31m<script>|\u202e"


@pytest.fixture
def report(tmp_path: Path) -> Report:
    nasty = records.cell("ddp", 2, label=NASTY)
    trials = [*run().trials, records.trial(nasty, 0, status="failed", reason=NASTY)]
    fresh = run("second", cells=[SINGLE, DDP, nasty], trials=trials, ddp=CALM)
    return check(fresh, tmp_path, run(ddp=[0.5 * each for each in CALM]))


def test_json_holds_every_finding(report: Report) -> None:
    content = json.loads(outputs.to_json(report))
    assert content["exit_code"] == 1
    assert len(content["findings"]) == len(report.findings)
    assert {finding["verdict"] for finding in content["findings"]} >= {"regressed", "failed", "ok"}


@pytest.mark.parametrize("strict", [False, True])
def test_junit_is_valid_and_says_what_went_wrong(report: Report, strict: bool, tmp_path: Path) -> None:
    text = outputs.to_junit(report, strict=strict)
    JUNIT.validate(text)
    suite = JUNIT.to_dict(text)["testsuite"][0]
    assert suite["@tests"] == len(suite["testcase"])
    assert suite["@failures"] == len([case for case in suite["testcase"] if "failure" in case]) > 0
    assert suite["@errors"] == len([case for case in suite["testcase"] if "error" in case]) == 1


def test_junit_of_a_foreign_environment_is_an_error(tmp_path: Path) -> None:
    text = outputs.to_junit(check(run("second", speed={**SPEED, "torch": "1"}), tmp_path))
    JUNIT.validate(text)
    assert "another environment" in text
    assert 'errors="0"' not in text


def test_text_and_markdown_are_inert_and_name_the_cell(report: Report) -> None:
    stream = StringIO()
    outputs.print_report(report, Console(file=stream, width=200))
    for text in (stream.getvalue(), outputs.to_markdown(report)):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "regressed" in text
        assert DDP.id in text
        assert "exit code 1" in text
    assert "\\<script\\>\\|" in outputs.to_markdown(report)


def test_the_section_of_a_scenario_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="larger than every margin"):
        CheckSpec(min_effect=0.04)
    assert issubclass(BaselineError, ParbenchError)
