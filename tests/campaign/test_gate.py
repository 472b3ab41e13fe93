"""The gate from outside: real launches of a scenario so small that its times would mean nothing.

So its model waits in every step, and slow is thirty times as slow: between that and what the noisiest machine does to
a wait lies the margin. `tokens_per_s`, which sees every hiccup, and memory, of which there is little, do not gate.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CommandLine, python_path
from tests.support.scenarios import TINY_LSTM

SCENARIO = (
    "\nname: tiny"
    + TINY_LSTM.replace("lstm, ", "paced_lstm, ")
    + """strategies: [single, sluggish]
devices: {kind: cpu, counts: [1]}
measure: {rounds: 5, warmup: 5, window_s: 0.02, validation_batches: 1, deadline_s: 600, account: false}
check:
  gate: [step_time_min_s, relative_step_time, parameters]
  margin: 3.0
  margin_few_sessions: 3.0
  min_effect: 10.0
"""
)
STEADY = ("--set", "strategies=[single]")
SLOW = "30"
"""So much more time a step takes."""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, foreign_package: Path) -> Path:
    """A folder with two runs, the first of them saved as a baseline."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "tiny.yaml").write_text(SCENARIO)
    parbench = CommandLine(folder, packages=foreign_package)
    for command in ("run tiny.yaml --out results/first", "baseline save first --name cpu-2core", "run tiny.yaml"):
        ended = parbench(*command.split())
        assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def gate(measured: Path, tmp_path: Path, foreign_package: Path) -> CommandLine:
    """A copy of that folder, to be spoilt at will."""
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    return CommandLine(tmp_path, packages=foreign_package)


def test_an_unchanged_rerun_is_fine_in_every_format(gate: CommandLine) -> None:
    for form in ("text", "json", "junit", "markdown"):
        ended = gate("check", "--baseline", "cpu-2core", "--format", form)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "lstm/sluggish/1" in ended.stdout
    assert json.loads(gate("check", "--baseline", "cpu-2core", "--format", "json").stdout)["exit_code"] == 0


def test_a_slowed_plug_in_regresses_and_is_confirmed(gate: CommandLine) -> None:
    gate.environment["SLUGGISH_EXTRA"] = SLOW
    ended = gate("check", "tiny.yaml", "--baseline", "cpu-2core", "--confirm")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    worse = [line for line in ended.stdout.splitlines() if "regressed" in line and "lstm" in line]
    assert worse
    assert all("lstm/sluggish/1" in line for line in worse)
    assert "measured once more" in ended.stdout


def test_a_doctored_fingerprint_is_told_field_by_field(gate: CommandLine) -> None:
    for path in gate.folder.glob("results/2*/run.json"):
        record = json.loads(path.read_text())
        record["environment"]["speed"] |= {"torch": "1.0", "memory_gib": 1}
        path.write_text(json.dumps(record))
    ended = gate("check", "--baseline", "cpu-2core")
    assert ended.returncode == 4
    assert 'torch: "2.' in ended.stdout
    assert "memory_gib:" in ended.stdout
    assert "cpu_model:" not in ended.stdout
    assert gate("check", "--baseline", "cpu-2core", "--portable").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("check", 2, "say what to compare with"),
        ("check --baseline a --aa", 2, "say what to compare with"),
        ("check --baseline absent", 4, "there is no baseline 'absent'"),
        ("check --baseline ../../etc/passwd", 2, "no name for a baseline"),
        ("check first --baseline cpu-2core", 2, "measure again"),
        ("check first --baseline cpu-2core --only lstm/single/* --only gru/*", 2, "--only gru/*: no cell's id matches"),
        ("check tiny.yaml --aa --only lstm/single/* --only gru/*", 2, "--only gru/*: no cell's id matches"),
        ("check nowhere --baseline cpu-2core", 2, "there is no run 'nowhere'"),
        ("check nowhere.yaml --baseline cpu-2core", 2, "nowhere.yaml"),
        ("check --baseline cpu-2core --confirm", 2, "needs a scenario's file"),
        ("check --against git:main", 2, "needs a scenario's file"),
        ("check tiny.yaml --against git:main", 2, "git rev-parse failed"),
        ("check tiny.yaml --against git:--help", 2, "git rev-parse failed"),
        ("check tiny.yaml --against python:/nowhere", 2, "there is no interpreter"),
        ("check tiny.yaml --against python:true", 2, "cannot run parbench"),
        ("check tiny.yaml --against main", 2, "must be git:REF or python:PATH"),
        ("check tiny.yaml --aa --set check.alpha=2", 2, "check.alpha"),
        ("check tiny.yaml --aa --set check.gate=[relative_step_time]", 2, "only ratios"),
        ("check tiny.yaml --aa --rounds 5 --max-rounds 4", 2, "is fewer than the first 5 rounds"),
        ("check tiny.yaml --baseline cpu-2core --max-rounds 9", 2, "use it with --against or --aa"),
        ("check tiny.yaml --aa --set check.gate=[speed]", 2, "check.gate"),
        ("check tiny.yaml --aa --set check.margin=0.9 --set check.min_effect=0.1", 2, "larger than every margin"),
        ("baseline save nowhere --name x", 2, "there is no run 'nowhere'"),
        ("baseline save latest --name a/b", 2, "no name for a baseline"),
        ("baseline save first --name cpu-2core", 2, "already"),
        ("baseline show absent", 4, "there is no baseline"),
    ],
)
def test_bad_input_is_a_sentence_with_its_exit_code(gate: CommandLine, arguments: str, code: int, words: str) -> None:
    ended = gate(*arguments.split())
    assert (ended.returncode, words in ended.stderr, "Traceback" in ended.stderr) == (code, True, False), ended.stderr


def test_an_edited_baseline_is_not_trusted(gate: CommandLine) -> None:
    path = gate.folder / "results/baselines/cpu-2core.json"
    path.write_text(path.read_text().replace('"commit": ', '"commit":  "x", "commit": ').replace("lstm/single/1", "x"))
    ended = gate("check", "--baseline", "cpu-2core")
    assert ended.returncode == 4
    assert "digest" in ended.stderr


def test_baselines_are_listed_and_shown(gate: CommandLine) -> None:
    assert gate("baseline", "list").stdout == "cpu-2core\n"
    assert gate("list", "baselines").stdout == "cpu-2core\n"
    assert "session first" in gate("baseline", "show", "cpu-2core").stdout


def test_cells_that_are_chosen_are_measured_with_the_references_of_their_ratios(gate: CommandLine) -> None:
    chosen = ("check", "tiny.yaml", "--only", "lstm/sluggish/*", "--format", "json")
    ended = gate(*chosen, "--baseline", "cpu-2core")
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr  # not 3; how long it took is not asked here
    findings = json.loads(ended.stdout)["findings"]
    assert {each["cell"] for each in findings} == {"lstm/sluggish/1"}
    assert "relative_step_time" in {each["metric"] for each in findings}


def test_damaged_records_are_said_when_a_run_is_saved(gate: CommandLine) -> None:
    with (gate.folder / "results" / "first" / "trials.jsonl").open("a") as file:
        file.write("{\x1b[31m\n")
    ended = gate("baseline", "save", "first", "--name", "other")
    assert ended.returncode == 0, ended.stderr
    assert "is left out" in ended.stderr
    assert "\x1b" not in ended.stderr


def test_against_itself_keeps_the_noise_floor(gate: CommandLine) -> None:
    ended = gate("check", "tiny.yaml", "--aa", "--rounds", "2", "--only", "lstm/sluggish/*", "--format", "json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {(each["cell"], each["metric"]) for each in json.loads(ended.stdout)["findings"]} >= {
        ("lstm/sluggish/1", "relative_step_time")
    }
    assert "lstm/single/1" not in ended.stdout
    (floor,) = gate.folder.glob("results/*/noise_floor.json")
    noise = {each["noise"] for each in json.loads(floor.read_text())["findings"] if each["metric"] == "step_time_s"}
    assert all(each > 0 for each in noise)


def test_rounds_are_added_to_the_same_runs_until_all_is_decided(gate: CommandLine) -> None:
    """Of two rounds nothing is certain where a change of a thousandth is asked for, so all are taken."""
    sharp = ("--set", "check.margin=0.0001", "--set", "check.margin_few_sessions=0.0001")
    options = ("--rounds", "2", "--max-rounds", "5", *STEADY, *sharp, "--set", "check.min_effect=0.001")
    ended = gate("check", "tiny.yaml", "--aa", *options, "--format", "json")
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr  # how long it took is not asked here
    report = json.loads(ended.stdout)
    (step,) = (each for each in report["findings"] if each["metric"] == "step_time_min_s")
    (folder,) = (path.parent for path in gate.folder.glob("results/*/noise_floor.json"))
    taken = {json.loads((folder / arm / "run.json").read_text())["rounds"] for arm in ("candidate", "base")}
    assert taken == {step["rounds"]}
    assert step["rounds"] in (2, 4, 5)
    assert any(note.startswith(f"{step['rounds']} rounds were measured") for note in report["notes"])
    certain = (*STEADY, "--rounds", "2", "--max-rounds", "9", "--set", "check.gate=[parameters]")
    ended = gate("check", "tiny.yaml", "--aa", *certain)
    assert "2 rounds were measured, of 9 at most" in ended.stdout, ended.stdout + ended.stderr


def test_a_commit_is_compared_with_the_working_tree(tmp_path: Path) -> None:
    """The user's package is slower in the working tree than at the commit; nothing else differs."""
    source = (Path(__file__).parents[1] / "foreign_package" / "parbench_foreign.py").read_text()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "parbench_foreign.py").write_text(source)
    (tmp_path / "tiny.yaml").write_text(SCENARIO)
    metadata = tmp_path / "src" / "parbench_foreign-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: parbench-foreign\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[parbench.strategies]\nsluggish = parbench_foreign:Sluggish\n"
        "[parbench.workloads]\npaced_lstm = parbench_foreign:PacedLSTM\n"
    )
    author = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "fast"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "src" / "parbench_foreign.py").write_text(
        source.replace('"SLUGGISH_EXTRA", "0"', f'"SLUGGISH_EXTRA", "{SLOW}"')
    )
    parbench = CommandLine(tmp_path, packages=tmp_path / "src")
    ended = parbench("check", "tiny.yaml", "--against", "git:HEAD", "--rounds", "4", "--format", "json")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    worse = {(each["cell"], each["verdict"]) for each in json.loads(ended.stdout)["findings"] if each["gated"]}
    assert ("lstm/sluggish/1", "regressed") in worse
    assert ("lstm/single/1", "regressed") not in worse
    left = subprocess.run(["git", "worktree", "list"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(left.stdout.splitlines()) == 1, "no worktree is left behind"


def test_a_repository_that_nothing_comes_from_is_refused(gate: CommandLine) -> None:
    author = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "empty"]):
        subprocess.run(["git", *command], cwd=gate.folder, check=True, capture_output=True)
    ended = gate("check", "tiny.yaml", "--against", "git:HEAD", *STEADY)
    assert ended.returncode == 2
    assert "compared with itself" in ended.stderr
    assert "name its file in the scenario" in ended.stderr


def test_another_interpreter_is_an_arm(gate: CommandLine) -> None:
    ended = gate("check", "tiny.yaml", "--against", f"python:{sys.executable}", "--rounds", "2", *STEADY)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# The pytest plug-in.


def pytest_in(folder: Path, packages: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # It is a user's pytest, and no worker of this one, in which pytest-benchmark would measure nothing.
    users = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-ra", *arguments],
        cwd=folder,
        env={**users, "PYTHONPATH": python_path(packages), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_pytest_collects_cells_with_their_records_and_gates(gate: CommandLine, foreign_package: Path) -> None:
    arguments = ("--scenario", "tiny.yaml", "--parbench-baseline", "cpu-2core", "--benchmark-json", "bench.json")
    ended = pytest_in(gate.folder, foreign_package, *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "5 passed" in ended.stdout
    records = json.loads((gate.folder / "bench.json").read_text())
    assert records["machine_info"]["parbench"]["torch"]
    for record in records["benchmarks"]:
        assert record["group"] == "lstm (strong)"
        assert record["stats"]["rounds"] == 5
        assert record["stats"]["data"] == pytest.approx(record["extra_info"]["step_time_s"])
    disabled = pytest_in(gate.folder, foreign_package, *arguments[:2], "--benchmark-disable")
    assert "2 passed" in disabled.stdout, "and no warning of a fixture that was not used"
    slowed = pytest_in(gate.folder, foreign_package, *arguments[:4], SLUGGISH_EXTRA=SLOW)
    assert slowed.returncode == 1
    assert "FAILED tiny.yaml::gate:lstm/sluggish/1" in slowed.stdout
    assert "FAILED tiny.yaml::gate:lstm/single/1" not in slowed.stdout


def test_pytest_fails_where_the_baseline_has_cells_that_the_scenario_lacks(
    gate: CommandLine, foreign_package: Path
) -> None:
    (gate.folder / "less.yaml").write_text(SCENARIO.replace("[single, sluggish]", "[single]"))
    less = ("--scenario", "less.yaml", "--parbench-baseline", "cpu-2core", "-k", "baseline")
    ended = pytest_in(gate.folder, foreign_package, *less)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "missing: no scenario has lstm/sluggish/1 any more" in ended.stdout
    both = pytest_in(gate.folder, foreign_package, *less, "--scenario", "tiny.yaml")
    assert "2 passed" in both.stdout, "one of the scenarios still has it"


def test_pytest_without_a_baseline_or_a_scenario_says_so(gate: CommandLine, foreign_package: Path) -> None:
    assert "needs --scenario" in pytest_in(gate.folder, foreign_package, "--parbench-baseline", "x").stderr
    assert "leave out -n" in pytest_in(gate.folder, foreign_package, "--scenario", "tiny.yaml", "-n", "2").stderr
    absent = pytest_in(
        gate.folder, foreign_package, "--scenario", "tiny.yaml", "--parbench-baseline", "x", "-k", "gate"
    )
    assert absent.returncode == 1
    assert "there is no baseline 'x'" in absent.stdout


def test_the_plug_in_is_light(tmp_path: Path) -> None:
    """Everybody's pytest imports it."""
    code = "import sys, pytest; before = {*sys.modules}; import parbench.pytest_plugin; print({*sys.modules} - before)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(ended.stdout)) <= {"parbench", "parbench.pytest_plugin"}
