"""A report in every format."""

import json
from io import StringIO
from pathlib import Path

import pytest
import xmlschema
from rich.console import Console

from parbench.check.rows import document
from parbench.check.terminal import print_report
from parbench.check.two_arms import against_arm
from parbench.check.verdicts import Report
from parbench.export.base import FORMATS
from tests.support import records
from tests.support.check_runs import CALM, DDP, SINGLE, SPEED, check, run

JUNIT = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))
NASTY = "\x1b[31m<script>|\u202e"


def written(form: str, report: Report, *, strict: bool = False) -> str:
    text = FORMATS[form]().write(document(report, strict=strict))
    assert isinstance(text, str)
    return text


@pytest.fixture
def report(tmp_path: Path) -> Report:
    nasty = records.cell("ddp", 2, label=NASTY)
    trials = [*run().trials, records.trial(nasty, 0, status="failed", reason=NASTY)]
    fresh = run("second", cells=[SINGLE, DDP, nasty], trials=trials, ddp=CALM)
    return check(fresh, tmp_path, run(ddp=[0.5 * each for each in CALM]))


def test_json_holds_every_finding(report: Report) -> None:
    content = json.loads(written("json", report))
    assert content["exit_code"] == 1
    assert len(content["findings"]) == len(report.findings)
    assert {finding["verdict"] for finding in content["findings"]} >= {"regressed", "failed", "ok"}


@pytest.mark.parametrize("strict", [False, True])
def test_junit_is_valid_and_says_what_went_wrong(report: Report, strict: bool, tmp_path: Path) -> None:
    text = written("junit", report, strict=strict)
    JUNIT.validate(text)
    suite = JUNIT.to_dict(text)["testsuite"][0]
    assert suite["@tests"] == len(suite["testcase"])
    assert suite["@failures"] == len([case for case in suite["testcase"] if "failure" in case]) > 0
    assert suite["@errors"] == len([case for case in suite["testcase"] if "error" in case]) == 1


def cases(text: str) -> dict[tuple[str, str], str]:
    """What became of every test case, by its class and name."""
    JUNIT.validate(text)
    outcomes = ("error", "failure", "skipped")
    return {
        (case["@classname"], case["@name"]): next((each for each in outcomes if each in case), "passed")
        for case in JUNIT.to_dict(text)["testsuite"][0]["testcase"]
    }


def test_junit_of_a_foreign_environment_is_an_error_and_skips_every_cell_and_metric(tmp_path: Path) -> None:
    fresh = run("second", speed={**SPEED, "torch": "1"}, ddp=[2 * each for each in CALM])
    text = written("junit", check(fresh, tmp_path))
    found = cases(text)
    assert "another environment" in text
    assert found.pop(("gate", "judged something")) == "error"
    assert set(found.values()) == {"skipped"}
    assert {(each, name) for each in (SINGLE.id, DDP.id) for name in ("step_time_min_s", "parameters")} <= set(found)
    assert (DDP.id, "relative_step_time") in found


def test_junit_of_a_cell_that_is_not_comparable_is_skipped_and_its_gate_an_error(tmp_path: Path) -> None:
    other = DDP.model_copy(update={"key": "another"})
    trials = [trial.model_copy(update={"key": "another"}) if trial.key == DDP.key else trial for trial in run().trials]
    found = cases(written("junit", check(run("second", cells=[SINGLE, other], trials=trials), tmp_path)))
    assert found[DDP.id, "measured"] == "skipped"
    assert found["gate", "judged something"] == "error"


def test_a_vanished_cell_is_an_error_of_the_gate_as_well(tmp_path: Path) -> None:
    found = cases(written("junit", check(run("second", ddp=None), tmp_path)))
    assert (found["gate", "judged something"], found[DDP.id, "measured"]) == ("error", "error")


def printed(report: Report, width: int, *, strict: bool = False) -> str:
    stream = StringIO()
    print_report(report, Console(file=stream, width=width), strict=strict)
    return stream.getvalue()


def test_nothing_is_cut_in_a_narrow_terminal(tmp_path: Path) -> None:
    name = "model_parallel(schedule=interleaved_1f1b, micro_batches=16, chunks=2)"
    long = records.cell("ddp", 2, label=name, key=DDP.key)
    stored, fresh = run(cells=[SINGLE, long]), run("second", cells=[SINGLE, long], ddp=[1.5 * each for each in CALM])
    text = printed(check(fresh, tmp_path, stored), 80)
    words = " ".join(text.split())
    assert "…" not in text
    assert f"regressed {long.id}, fastest step" in words
    assert "before 200 ms, now 300 ms, now ÷ before 1.500 [1.466, 1.535]" in words
    assert "margin 5%" in words
    assert max(map(len, text.splitlines()[:3])) <= len(f"regressed {long.id}, fastest step")


def test_the_permutation_test_of_pairs_is_in_every_format() -> None:
    report = against_arm(run("candidate", ddp=[1.5 * each for each in CALM]), run("base"), "A/B")
    for text in (printed(report, 80), printed(report, 300), written("markdown", report)):
        assert "p (signs)" in text
        assert "0.031" in text
    assert "p of random signs 0.031" in written("junit", report)


def test_advisory_regressions_and_open_verdicts_are_said(tmp_path: Path) -> None:
    gate = {"gate": ["step_time_min_s"], "min_effect": 0.06}
    slower = run("second", check=gate, ddp=[1.05 * each for each in CALM])
    report = check(slower, tmp_path / "a")
    for text in (printed(report, 300), written("markdown", report)):
        assert "inconclusive, which is not ok: --strict would exit with 5" in text
    assert "would exit with 5" not in printed(report, 300, strict=True)
    report = check(run("second", check={"gate": ["parameters"]}, ddp=[2 * each for each in CALM]), tmp_path / "b")
    assert report.exit_code(strict=True) == 0
    assert "regressed (advisory)" in printed(report, 300)
    assert "regressed (advisory)" in written("markdown", report)


def test_a_new_cell_hides_no_ratio_in_a_foreign_environment(tmp_path: Path) -> None:
    new = records.cell("fsdp", 2)
    fresh = run("second", speed={**SPEED, "torch": "1"})
    trials = [*fresh.trials, *(records.trial(new, number) for number in range(5))]
    fresh = run("second", speed={**SPEED, "torch": "1"}, cells=[SINGLE, DDP, new], trials=trials)
    assert "step ÷ reference's" in printed(check(fresh, tmp_path), 300)


def test_text_and_markdown_are_inert_and_name_the_cell(report: Report) -> None:
    for text in (printed(report, 200), printed(report, 80), written("markdown", report)):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "regressed" in text
        assert DDP.id in text
        assert "exit code 1" in text
    assert "\\<script\\>\\|" in written("markdown", report)
