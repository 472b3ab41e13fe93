"""Comparisons with a parbench of another version: trees made of this one, real interpreters and real launches."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import parbench
from parbench.errors import Unsupported
from parbench.launch.remote.fit import fit_workload
from parbench.launch.remote.protocol import HERE, Introduction
from parbench.results.store import Run, read_run
from tests.conftest import CommandLine
from tests.support.scenarios import TINY_LSTM

PACKAGE = Path(parbench.__file__).parent
BEFORE_THE_PROTOCOL = "6112368b9e59"  # the last commit without it
ELSEWHERE = "rank of the other tree"
SCENARIO = (
    "\nname: tiny"
    + TINY_LSTM
    + """strategies: [single]
devices: {kind: cpu, counts: [1]}
measure: {rounds: 2, warmup: 5, window_s: 0.02}
"""
)

# The names that the trees from before had, and that the server for them imports.
AS_BEFORE_THE_PROTOCOL = {
    "environment.py": "from parbench.system.environment import capture",
    "launch/local/__init__.py": "from parbench.launch.local.launcher import LocalLauncher",
    "results/trial.py": "from parbench.records.assignment import Assignment",
}

Change = Callable[[Path], None]
"""What it does to the package in the folder that it gets."""


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Replaces the first place that matches. A change that changes nothing would test nothing."""
    text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.DOTALL)
    assert count == 1, f"{path} has no {pattern}"
    path.write_text(text)


def add_field(path: Path, owner: str, field: str) -> None:
    edit(path, rf'(class {owner}\(.*?\n    """.*?"""\n\n)', rf"\g<1>    {field}\n")


def remove_field(path: Path, owner: str, field: str) -> None:
    edit(path, rf"(class {owner}\(.*?)\n    {field}: [^\n]*", r"\g<1>")


def move(package: Path, module: str, target: str) -> None:
    """Moves a module, and has all others import it from there."""
    (package / f"{module}.py").rename(package / f"{target}.py")
    old, new = (f"parbench.{name.replace('/', '.')}" for name in (module, target))
    for path in package.rglob("*.py"):
        path.write_text(re.sub(rf"\b{re.escape(old)}\b", new, path.read_text()))


def unchanged(package: Path) -> None:
    """Nothing."""


def with_fields_added(package: Path) -> None:
    add_field(package / "records/assignment.py", "Assignment", 'colour: str = "red"')
    add_field(package / "records/trial.py", "RankRecord", 'colour: str = "red"')


def with_fields_removed(package: Path) -> None:
    remove_field(package / "records/assignment.py", "Assignment", "round")
    remove_field(package / "records/trial.py", "RankRecord", "threads")
    edit(package / "measure/worker.py", r"threads=assignment\.threads, cores=role\.cpus", "cores=role.cpus")


def with_modules_moved(package: Path) -> None:
    move(package, "training/updates", "training/rules")
    move(package, "system/environment", "system/fingerprint")


def before_the_protocol(package: Path) -> None:
    (package / "remote.py").unlink()
    shutil.rmtree(package / "launch/remote")
    edit(package / "base_types.py", 'extra="ignore"', 'extra="forbid"')
    remove_field(package / "records/assignment.py", "Assignment", "round")
    for path, line in AS_BEFORE_THE_PROTOCOL.items():
        with (package / path).open("a") as file:
            print(line, file=file)


def at_the_last_commit_before_it(package: Path) -> None:
    git = ["git", "-C", str(PACKAGE.parent)]
    stored = subprocess.run([*git, "archive", BEFORE_THE_PROTOCOL, "parbench"], capture_output=True, check=False)
    if stored.returncode:
        pytest.skip(f"this clone of the repository does not have commit {BEFORE_THE_PROTOCOL}")
    shutil.rmtree(package)
    subprocess.run(["tar", "-x", "-C", str(package.parent)], input=stored.stdout, check=True)


def of_another_protocol(package: Path) -> None:
    edit(package / "launch/remote/protocol.py", r"OLDEST, NEWEST = \d+, \d+", "OLDEST, NEWEST = 97, 98")


def with_a_required_field(package: Path) -> None:
    add_field(package / "records/assignment.py", "Assignment", "colour: str")


def with_more_to_write(package: Path) -> None:
    """Fields of a workload that the other tree does not have."""
    more = r'    flavour: str = "plain"\n'
    edit(package / "scenario/specs.py", r"(    precision: Precision = )", rf"{more}\g<1>")
    edit(package / "scenario/specs.py", r"(    lr: PositiveFloat = )", rf"{more}\g<1>")
    edit(package / "models/lstm.py", r'(    kind: Literal\["lstm"\] = "lstm"\n)', rf"\g<1>{more}")


def repository(folder: Path, there: Change, here: Change = unchanged) -> CommandLine:
    """The command line in a repository of parbench, which has one tree in its only commit and another to work in."""
    package = folder / "parbench"
    (folder / "tiny.yaml").write_text(SCENARIO)

    def fill(change: Change) -> None:
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        change(package)

    fill(there)
    # Where a rank says its host: in trees from before, the worker did.
    place = next(file for name in ("rank", "worker") if (file := package / f"measure/{name}.py").exists())
    edit(place, r"host=socket\.gethostname\(\)", f'host="{ELSEWHERE}"')
    for command in ("init -q", "add .", "-c user.name=x -c user.email=x@x commit -qm there"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True, capture_output=True)
    fill(here)
    return CommandLine(folder, packages=folder)


def runs(folder: Path) -> tuple[Run, Run]:
    """What the candidate and the base have measured."""
    (measured,) = (path.parent for path in folder.glob("results/*/candidate"))
    return read_run(measured / "candidate"), read_run(measured / "base")


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (with_fields_added, unchanged),
        (with_fields_removed, with_more_to_write),
        (with_modules_moved, unchanged),
        (before_the_protocol, with_more_to_write),
        (at_the_last_commit_before_it, unchanged),
    ],
    ids=lambda change: change.__name__,
)
def test_no_cell_fails_against_a_tree(there: Change, here: Change, tmp_path: Path) -> None:
    ended = repository(tmp_path, there, here)("check", "tiny.yaml", "--against", "git:HEAD", "--format", "json")
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr  # how long it took is not asked here
    for run, elsewhere in zip(runs(tmp_path), (False, True), strict=True):
        assert run.problems == ()
        knows_proofs = not (elsewhere and there is at_the_last_commit_before_it)
        assert {trial.purpose for trial in run.trials} == {"reference", "measure", *["proof"] * knows_proofs}
        assert {(trial.status, trial.reason) for trial in run.trials} == {("ok", None)}
        assert {rank.host == ELSEWHERE for trial in run.trials for rank in trial.ranks} == {elsewhere}
    findings = json.loads(ended.stdout)["findings"]
    assert findings
    assert "failed" not in {each["verdict"] for each in findings}


@pytest.mark.parametrize(
    ("there", "here", "options", "sentence"),
    [
        (
            of_another_protocol,
            unchanged,
            (),
            f"the base supports protocol versions 97 to 98, this parbench {HERE.range}",
        ),
        (with_a_required_field, unchanged, (), "the base needs colour for each trial"),
        (
            unchanged,
            with_more_to_write,
            ("--set", "workloads.lstm.optimizer.flavour=hot"),
            "the base does not know optimizer.flavour of workload lstm, which is hot: leave",
        ),
    ],
    ids=["of another protocol", "with a required field", "without a field that is written"],
)
def test_a_tree_that_cannot_take_part_is_refused_by_name(
    there: Change, here: Change, options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    ended = repository(tmp_path, there, here)("check", "tiny.yaml", "--against", "git:HEAD", *options)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("results/*/*/run.json"))


@pytest.mark.parametrize(
    ("one", "other", "talk"),
    [((1, 1), (1, 1), True), ((1, 1), (1, 3), True), ((1, 2), (2, 3), True), ((1, 1), (2, 3), False)],
)
def test_two_parbenches_talk_if_they_have_a_version_in_common(
    one: tuple[int, int], other: tuple[int, int], talk: bool
) -> None:
    a, b = (Introduction(parbench="0", oldest=oldest, newest=newest) for oldest, newest in (one, other))
    assert (a.speaks_with(b), b.speaks_with(a)) == (talk, talk)


def test_the_door_is_not_for_people() -> None:
    ended = subprocess.run([sys.executable, "-m", "parbench.remote"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "parbench check --against" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_workload_loses_only_what_is_not_known_here() -> None:
    content = {
        "model": {"kind": "lstm", "layers": 2, "d_model": 8, "gates": 5},
        "data": {"source": "synthetic", "vocab_size": 16, "shuffle": True},
        "optimizer": {"name": "sgd", "momentum": 0.5, "nesterov": True},
        "epochs": 3,
    }
    workload, unknown = fit_workload(content, ".")
    assert sorted(unknown) == ["data.shuffle", "epochs", "model.gates", "optimizer.nesterov"]
    assert (workload.model.kind, workload.data.vocab_size, workload.optimizer.momentum) == ("lstm", 16, 0.5)
    assert content["model"]["gates"] == 5, "it is not changed"


def test_a_workload_that_lacks_what_is_needed_here_says_which() -> None:
    with pytest.raises(Unsupported, match=r"optimizer\.lr: "):
        fit_workload({"model": {"kind": "lstm"}, "optimizer": {"lr": "fast", "more": 1}}, ".")
