"""A report in every format."""

import json
from io import StringIO
from pathlib import Path

import pytest
import xmlschema
from rich.console import Console

from parbench.check import outputs
from parbench.check.verdicts import Report
from tests import records
from tests.check_runs import CALM, DDP, SINGLE, SPEED, check, run

JUNIT = xmlschema.XMLSchema(Path(__file__).parent / "junit.xsd")
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
