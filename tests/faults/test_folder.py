"""Faults of what is stored: full and read-only disks, damage, other versions, planted links, forged files."""

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parbench.check.baselines import save
from parbench.errors import ResultsError
from parbench.results.seal import seal, unseal
from parbench.results.store import Store, read_run
from tests.conftest import CommandLine, python_path
from tests.faults.scenarios import scenario, trials_of
from tests.support.records import cell, reference, run_record, trial

SINGLE = cell()
HOLD_LOCK = """
import sys, time
from pathlib import Path
from parbench.results.store import Store
with Store.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def faults(parbench_with_plugins: CommandLine) -> CommandLine:
    (parbench_with_plugins.folder / "faults.yaml").write_text(scenario("single", "averaging"))
    return parbench_with_plugins


def stored(folder: Path) -> Path:
    """A made-up run of three good rounds, as parbench stores it."""
    with Store.locked(folder) as store:
        store.begin(run_record([SINGLE], rounds=3, environment={"speed": {"physical_cores": 2}}))
        for each in (reference(), *(trial(SINGLE, number) for number in range(3))):
            store.append(each)
    return folder


def refused(ended: subprocess.CompletedProcess[str], sentence: str, code: int = 2) -> None:
    assert ended.returncode == code
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_row_12_two_runs_into_one_folder(faults: CommandLine) -> None:
    out = faults.folder / "out"
    holder = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, out], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    refused(
        faults("run", "faults.yaml", "--only", "*single*", "--out", "out"),
        f"in use by process {holder.pid} on {socket.gethostname()}",
    )
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (out / "lock").read_text().startswith(str(holder.pid))  # what it left does not stand in the way
    assert faults("run", "faults.yaml", "--only", "*single*", "--out", "out").returncode == 0


def test_row_13_a_full_disk(faults: CommandLine, mount: Callable[..., Path]) -> None:
    full = mount("full")
    ended = faults("run", "faults.yaml", "--rounds", "40", "--out", full / "out")
    assert ended.returncode != 0
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr.replace("Traceback (most recent call last) in", "")
    run = read_run(full / "out")
    assert [each.status for each in run.trials].count("ok") > 2
    assert run.problems == ()
    assert faults("table", full / "out").returncode == 0


def resumed_with_room(faults: CommandLine, full: Path, size: str, *options: str) -> list[str]:
    """Makes room and goes on; the trials' statuses, of which those from before are kept."""
    before = (full / "out" / "trials.jsonl").read_bytes()
    subprocess.run(["mount", "-o", f"remount,size={size}", full], check=True)
    ended = faults("run", "faults.yaml", "--out", full / "out", "--resume", *options)
    assert ended.returncode == 0, ended.stderr
    assert f"{len(before.splitlines())} measured before are kept" in ended.stderr
    assert (full / "out" / "trials.jsonl").read_bytes().startswith(before)
    return [each.status for each in read_run(full / "out").trials]


@pytest.mark.parametrize("pages", [11, 12, 13])
def test_row_33_what_met_a_full_disk_is_measured_again(
    faults: CommandLine, mount: Callable[..., Path], pages: int
) -> None:
    """Whatever it is that does not fit first: an assignment, a log, a record, or a line of trials."""
    full = mount("full", f"size={4 * pages}k")
    run = ("run", "faults.yaml", "--rounds", "6", "--only", "*single*", "--out", full / "out")
    refused(faults(*run), "No space left on device")
    assert {each.status for each in read_run(full / "out").trials} == {"ok"}
    assert resumed_with_room(faults, full, "4m", "--rounds", "6", "--only", "*single*") == ["ok"] * 9


@pytest.mark.parametrize("how", ["full_disk", "full_disk_in_silence"])
@pytest.mark.parametrize("launcher", ["local", "torchrun"])
def test_row_33_a_disk_that_gets_full_while_a_rank_runs(
    faults: CommandLine, mount: Callable[..., Path], how: str, launcher: str
) -> None:
    full = mount("full", "size=1m")
    faults.environment["FILL"] = str(full / "fill")
    (faults.folder / "faults.yaml").write_text(scenario("single", {"misbehaving": {"how": how}}))
    ended = faults("run", "faults.yaml", "--out", full / "out", "--launcher", launcher)
    refused(ended, "No space left on device; make room there: what was measured is kept; go on with: parbench run")
    assert {each.status for each in read_run(full / "out").trials} <= {"ok"}
    (full / "fill").unlink()
    faults.environment["FILL"] = "/dev/full"  # another disk, which does not keep the results: a failure of its own
    again = faults("run", "faults.yaml", "--out", full / "out", "--launcher", launcher, "--resume")
    assert again.returncode == (3 if how == "full_disk" else 0), again.stderr


def test_row_14_power_loss(faults: CommandLine) -> None:
    assert faults("run", "faults.yaml", "--out", "out").returncode == 0
    path = faults.folder / "out" / "trials.jsonl"
    good = path.read_text().splitlines(keepends=True)
    path.write_text("".join(good[:-1]) + good[-1][: len(good[-1]) // 2])
    table = faults("table", "out")
    assert f"trials.jsonl, line {len(good)} is left out" in table.stderr
    resumed = faults("run", "faults.yaml", "--out", "out", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"trials.jsonl, line {len(good)} is left out" in resumed.stderr
    assert f"1 trials to launch; {len(good) - 1} measured before are kept" in resumed.stderr
    assert len(read_run(path.parent).trials) == len(good)


@pytest.mark.parametrize("name", ["run.json", "trials.jsonl"])
def test_row_16_an_unknown_schema(parbench: CommandLine, name: str) -> None:
    path = stored(parbench.folder / "mine") / name
    newer = path.read_text().replace('"schema_version": 1', '"schema_version": 99')
    path.write_text(newer.replace('"schema_version":1', '"schema_version":99'))
    for command in ("table", "report"):
        refused(parbench(command, "mine"), "this parbench reads version 1: use the parbench that wrote it")


def test_row_17_resume_after_a_change(faults: CommandLine, foreign_package: Path) -> None:
    own = faults.folder / "site"
    own.mkdir()
    (own / "parbench_foreign.py").write_bytes((foreign_package / "parbench_foreign.py").read_bytes())
    faults.environment["PYTHONPATH"] = python_path(own, foreign_package)
    run = ("run", "faults.yaml", "--out", "out", "--resume")
    assert faults(*run).returncode == 0
    assert len(trials_of(faults.folder / "out")) == 6, "a proof and a timed trial of each cell, and their references"

    scenario_changed = faults(*run, "--set", "measure.warmup=6")
    assert "2 trials are of cells that are not planned any more; they stay, unused" in scenario_changed.stderr
    assert "6 trials to launch\n" in scenario_changed.stderr

    with (own / "parbench_foreign.py").open("a") as file:
        file.write("# another edition\n")
    faults.environment["OMP_DYNAMIC"] = "false"
    changed = faults(*run)
    assert "12 trials are not used, but measured anew: variables.OMP_DYNAMIC was None, is false" in changed.stderr
    assert "the code that measures has changed" in changed.stderr
    assert "6 trials to launch" in changed.stderr

    again = faults(*run)
    assert "0 trials to launch; 6 measured before are kept" in again.stderr
    assert len(trials_of(faults.folder / "out")) == 18
    assert len(json.loads(faults("table", "out", "--format", "json").stdout)) == 2


def test_row_21_names_that_are_paths(faults: CommandLine) -> None:
    names = ["../x", "/tmp/x", "..", "con/../../x", "n" * 100, "a\0b"]  # noqa: S108 - a name, not a file
    text = scenario("single").replace("name: faults", f'name: "../../{"x" * 300}"')
    workload = text[text.index("  bag:") : text.index("strategies:")]
    every = "".join(workload.replace("  bag:", f"  {json.dumps(name)}:") for name in names)
    inside = faults.folder / "a" / "b"
    inside.mkdir(parents=True)
    (inside / "faults.yaml").write_text(text.replace(workload, every))
    before = set(faults.folder.parent.rglob("*"))
    faults.folder = inside
    ended = faults("run", "faults.yaml")
    assert ended.returncode == 0, ended.stderr
    assert len(list((inside / "results").iterdir())) == 1
    page = faults("report")
    assert page.returncode == 0, page.stderr
    assert {path.name for path in inside.iterdir()} == {"faults.yaml", "results", "report"}
    new = set(inside.parents[2].rglob("*")) - before
    cache = Path(os.environ["PARBENCH_CACHE"])  # of all tests, beside their folders
    assert all(path.is_relative_to(inside) or path.is_relative_to(cache) for path in new)


@pytest.mark.parametrize("planted", ["trials.jsonl", "trials"])
def test_row_21_planted_links(faults: CommandLine, planted: str) -> None:
    precious = faults.folder / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    (faults.folder / "out").mkdir()
    (faults.folder / "out" / planted).symlink_to(precious if planted == "trials" else precious / "file")
    refused(faults("run", "faults.yaml", "--only", "*single*", "--out", "out"), "link")
    assert [path.name for path in precious.iterdir()] == ["file"]
    assert (precious / "file").read_text() == "precious"


@pytest.fixture(scope="module")
def folder_names(tmp_path_factory: pytest.TempPathFactory, foreign_package: Path) -> list[str]:
    """How the trials' folders of the scenario's `single` are called."""
    first = CommandLine(tmp_path_factory.mktemp("first"), packages=foreign_package)
    (first.folder / "faults.yaml").write_text(scenario("single", "averaging"))
    assert first("run", "faults.yaml", "--only", "*single*", "--out", "out").returncode == 0
    return sorted(path.name for path in (first.folder / "out" / "trials").iterdir())


def test_row_21_links_planted_at_a_trials_folder(faults: CommandLine, folder_names: list[str]) -> None:
    assert len(folder_names) == 4
    for number, name in enumerate(folder_names):
        precious, out = faults.folder / f"precious{number}", faults.folder / f"out{number}"
        precious.mkdir()
        (precious / "rank0.json").write_text("precious")
        (out / "trials").mkdir(parents=True)
        (out / "trials" / name).symlink_to(precious)
        refused(faults("run", "faults.yaml", "--only", "*single*", "--out", out.name), "is a link")
        assert [path.name for path in precious.iterdir()] == ["rank0.json"]
        assert (precious / "rank0.json").read_text() == "precious"


def test_row_21_links_planted_in_a_trials_folder(faults: CommandLine, folder_names: list[str]) -> None:
    precious = faults.folder / "precious"
    precious.write_text("precious")
    for name in folder_names:
        folder = faults.folder / "out" / "trials" / name
        folder.mkdir(parents=True)
        for planted in ("cell.json", "rank0.json", "rank0.log"):
            (folder / planted).symlink_to(precious)
    ended = faults("run", "faults.yaml", "--only", "*single*", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    assert precious.read_text() == "precious"
    assert not [path for path in (faults.folder / "out").rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("planted", ["lock", "run.json.tmp", "run.json"])
def test_row_21_planted_links_of_the_store(tmp_path: Path, planted: str) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / planted).symlink_to(tmp_path / "file")
    with contextlib.suppress(ResultsError):
        stored(tmp_path / "out")
    assert (tmp_path / "file").read_text() == "precious"


class Bomb:
    """Pickled, it makes a file wherever it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_row_23_pickles_are_never_loaded(parbench: CommandLine) -> None:
    import torch

    exploded, folder = parbench.folder / "exploded", parbench.folder
    bomb = pickle.dumps(Bomb(exploded))
    torch.save(Bomb(exploded), folder / "results.pt")
    mine = stored(folder / "results" / "mine")
    (folder / "results" / "baselines").mkdir()
    (folder / "results" / "baselines" / "mine.json").write_bytes(bomb)
    (folder / "scenario.pkl").write_bytes(bomb)
    for name in ("scenario.pkl", "results.pt"):
        refused(parbench("plan", name), "")
        refused(parbench("report", name), "there is no run")
    refused(parbench("check", "mine", "--baseline", "mine"), "mine.json", code=4)
    (mine / "trials.jsonl").write_bytes(bomb)
    assert "line 1 is left out" in parbench("table", "mine").stderr
    (mine / "run.json").write_bytes((folder / "results.pt").read_bytes())
    refused(parbench("table", "mine"), "run.json")
    assert not exploded.exists()


def test_row_24_hand_edited_results_and_baselines(parbench: CommandLine) -> None:
    mine = stored(parbench.folder / "results" / "mine")
    save(read_run(mine), "kept", parbench.folder / "results" / "baselines")

    path = mine / "trials.jsonl"
    lines = path.read_text().splitlines()
    forged = lines[2].replace('"window_s":2.0', '"window_s":1.0')
    unsealed = unseal(lines[3])[0]
    assert forged != lines[2]
    path.write_text("\n".join([*lines[:2], forged, unsealed]) + "\n")
    table = parbench("table", "mine")
    assert "line 3 is left out: it was changed after it was written: its digest does not match" in table.stderr
    assert "line 4 is left out: it carries no digest" in table.stderr
    report = parbench("report", "mine")
    assert "its digest does not match" in (parbench.folder / report.stdout.strip()).read_text()

    plan = (mine / "run.json").read_text()
    (mine / "run.json").write_text(plan.replace('"rounds": 3', '"rounds": 2'))
    assert "run.json: it was changed after it was written" in parbench("table", "mine").stderr

    baseline = parbench.folder / "results" / "baselines" / "kept.json"
    baseline.write_text(baseline.read_text().replace('"rounds": 3', '"rounds": 2').replace("0.2", "0.1"))
    refused(parbench("check", "mine", "--baseline", "kept"), "was edited after it was saved", code=4)


def test_a_seal_is_of_the_text_and_of_nothing_else() -> None:
    for text in ('{"a":1}', '{\n "a": 1\n}', '{"digest":"x"}', '{"a":"}"}'):
        sealed = seal(text)
        assert json.loads(sealed).keys() >= json.loads(text).keys()
        assert unseal(sealed)[1] is None
        assert json.loads(unseal(sealed)[0]) == json.loads(text)
        assert unseal(text)[1] == "it carries no digest"


def test_row_30_what_stands_in_the_way_is_said_before_anything_starts(
    faults: CommandLine, mount: Callable[..., Path]
) -> None:
    sealed = mount("sealed", "ro")
    refused(faults("run", "faults.yaml", "--out", sealed / "out"), "Read-only file system; choose another with --out")
    missing = ("--set", "workloads.bag.data={source: text, path: absent.txt}")
    refused(faults("run", "faults.yaml", "--out", "out", *missing), "absent.txt")
    short = ("--set", "workloads.bag.data.tokens=4", "--set", "workloads.bag.seq_len=64")
    refused(faults("run", "faults.yaml", "--out", "out", *short), "tokens")
    assert not (faults.folder / "out" / "trials").exists()
