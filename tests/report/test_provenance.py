"""How a run was measured, as the report tells it: warnings, the scenario with its defaults, and the command."""

import shlex
from pathlib import Path

import pytest

from parbench.plan.reading import catalogue
from parbench.report import provenance
from parbench.report.cautions import collect_cautions
from parbench.report.panels import view_runs
from parbench.results.store import Run
from parbench.scenario.document import read_document
from parbench.scenario.loader import draft_scenario
from tests.report.test_page import REPOSITORY, page_of
from tests.support.records import cell, job, rank, reference, run, run_record, trial


def test_every_warning_is_on_the_page():
    emulated, noisy = cell("dp", 2, emulated=True), cell("noisy", 2, oversubscribed=True)
    unsteady = (rank(jobs=(job(steady=False),)),)
    trials = [reference(), trial(), trial(emulated, ranks=unsteady), trial(noisy), trial(noisy, 1, window_s=4.0)]
    trials.append(trial(cell(), environment="another"))
    environment = {"context": {"load_average": [3.0, 1, 1]}, "speed": {"physical_cores": 2}}
    record = run_record([cell(), emulated, noisy], environment=environment)
    (view,) = view_runs([Run(Path("x"), record, tuple(trials), ("trials.jsonl, line 7 is left out: torn",))])
    texts = " ".join(caution.text for caution in collect_cautions(view))
    for part in (
        "line 7 is left out", "1 trials were taken in another environment", "Only 1 round", "load average was 3.0",
        "Emulated", "drives all devices", "More devices than core shares", "not steady",
        "Rounds differ by more than 10 %",
    ):  # fmt: skip
        assert part in texts


def test_every_disturbed_trial_is_listed_and_counted(tmp_path):
    trials = [trial(number=number, warnings=(f"reason {number}",) if number else ()) for number in range(9)]
    page = page_of([run([cell()], [reference(), *trials], rounds=9)], tmp_path)
    assert "8 of 10 trials were disturbed." in page.text
    assert "All 8" in page.text
    for number in range(1, 9):
        assert f"round {number + 1} of lstm/single/1/strong: reason {number}" in page.text


def test_a_warning_about_many_cells_lists_each_of_them():
    cells = [cell(f"s{number}", 2, emulated=True) for number in range(9)]
    (view,) = view_runs([run(cells)])
    (emulated,) = (caution for caution in collect_cautions(view) if "Emulated" in caution.text)
    assert emulated.text.endswith(": 9 cells.")
    assert [case.split()[0] for case in emulated.cases] == [f"s{number}" for number in range(9)]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "scenarios").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_resolved_scenario_can_be_run_again(path, tmp_path):
    scenario = draft_scenario(read_document(path), catalogue(), default_name="x").scenario
    assert scenario is not None
    copy = tmp_path / "copy.yaml"
    copy.write_text(provenance.scenario_yaml(scenario.resolved()))
    draft = draft_scenario(read_document(copy), catalogue(), default_name="x")
    assert not draft.mistakes
    assert draft.scenario == scenario


def test_the_command_can_be_pasted():
    record = run_record(command=("parbench", "run", "a b.yaml", "--only", "*; rm -rf /"))
    assert shlex.split(provenance.command(Run(Path("x"), record, (), ()))) == list(record.command)
