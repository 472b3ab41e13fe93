import json
import multiprocessing
import os
import platform
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from pydantic import ValidationError

from parbench.errors import ResultsError
from parbench.records.trial import SCHEMA_VERSION, JobRecord
from parbench.results import store
from parbench.results.store import RUN_FILE, TRIALS_FILE, Store, find_run, latest_of, list_runs, read_run
from tests.support.records import cell, job, reference, run_record, trial
from tests.support.waiting import PATIENCE_S, wait_for

RECORD = run_record([cell(), cell("ddp", 2)], rounds=3)


def new_run(folder: Path, *trials, record=RECORD) -> Path:
    with Store.locked(folder) as opened:
        opened.begin(record)
        for each in trials:
            opened.append(each)
    return folder


def aged(folder: Path, seconds: int) -> Path:
    os.utime(new_run(folder) / RUN_FILE, (seconds, seconds))
    return folder


def test_a_run_is_read_back_as_it_was_written(tmp_path):
    trials = (reference(), trial(number=0), trial(number=1, status="failed", reason="ünë line\nand another"))
    run = read_run(new_run(tmp_path / "deep" / "run", *trials))
    assert (run.record, run.trials, run.problems) == (RECORD, trials, ())
    assert run.folder == tmp_path / "deep" / "run"


def test_a_run_without_trials_is_a_run(tmp_path):
    assert read_run(new_run(tmp_path)).trials == ()


def test_trials_are_only_ever_appended(tmp_path):
    new_run(tmp_path, trial(number=0))
    before = (tmp_path / TRIALS_FILE).read_bytes()
    with Store.locked(tmp_path) as opened:
        opened.append(trial(number=1))
    after = (tmp_path / TRIALS_FILE).read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 2


def test_every_trial_is_on_the_disk_before_append_returns(tmp_path, monkeypatch):
    synced: list[tuple[int, int]] = []
    monkeypatch.setattr(store.os, "fsync", lambda file: synced.append((os.fstat(file).st_ino, os.fstat(file).st_size)))
    new_run(tmp_path, trial())
    assert (tmp_path.stat().st_ino, tmp_path.stat().st_size) == synced[-1]  # and so is the name of its file
    file = (tmp_path / TRIALS_FILE).stat()
    assert synced[-2] == (file.st_ino, file.st_size)
    new_run(tmp_path, trial(number=1))
    assert synced[-1] == (file.st_ino, (tmp_path / TRIALS_FILE).stat().st_size)


def test_the_name_of_a_plan_is_on_the_disk_before_begin_returns(tmp_path, monkeypatch):
    synced: list[tuple[int, set[Path]]] = []
    monkeypatch.setattr(store.os, "fsync", lambda file: synced.append((os.fstat(file).st_ino, set(tmp_path.iterdir()))))
    new_run(tmp_path)
    inode, names = synced[-1]
    assert inode == tmp_path.stat().st_ino
    assert tmp_path / RUN_FILE in names


def test_beginning_again_replaces_the_plan_and_keeps_the_trials(tmp_path):
    new_run(tmp_path, trial())
    new_run(tmp_path, record=run_record(rounds=7))
    run = read_run(tmp_path)
    assert (run.record.rounds, run.trials) == (7, (trial(),))
    assert not list(tmp_path.glob("*.tmp"))


def hold(folder, ready, leave):
    with Store.locked(folder):
        ready.set()
        leave.wait(PATIENCE_S)


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready, leave = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=hold, args=(tmp_path, ready, leave))
    holder.start()
    try:
        wait_for(ready.is_set, "the lock", ended=lambda: holder.exitcode is not None and holder)
        with pytest.raises(ResultsError, match=rf"in use by process {holder.pid} on "), Store.locked(tmp_path):
            pass
    finally:
        leave.set()
        holder.join()
    with Store.locked(tmp_path) as opened:
        opened.append(trial())


def test_two_stores_of_one_process_are_refused_as_well(tmp_path):
    with (
        Store.locked(tmp_path),
        pytest.raises(ResultsError, match=f"in use by process {os.getpid()} on {socket.gethostname()}$"),
        Store.locked(tmp_path),
    ):
        pass


def test_an_error_releases_the_lock(tmp_path):
    with pytest.raises(KeyError), Store.locked(tmp_path):
        raise KeyError
    with Store.locked(tmp_path):
        pass


def test_a_truncated_last_line_costs_that_trial_alone(tmp_path):
    new_run(tmp_path, *(trial(number=number) for number in range(3)))
    path = tmp_path / TRIALS_FILE
    path.write_bytes(path.read_bytes()[:-40])
    run = read_run(tmp_path)
    assert [each.round for each in run.trials] == [0, 1]
    assert len(run.problems) == 1
    assert run.problems[0].startswith(f"{TRIALS_FILE}, line 3 is left out: ")

    new_run(tmp_path, trial(number=3), trial(number=4))
    run = read_run(tmp_path)
    assert [each.round for each in run.trials] == [0, 1, 3, 4]
    assert len(run.problems) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"\xff\xfe", b"\x00" * 100, b"null", b"[]", b'"text"', b"", b'{"schema_version": 1}',
        b"[" * 100_000, b'{"a":' * 100_000, b'{"schema_version": 1, "round": 1e999}', b"9" * 10_000,
    ],
    ids=[
        "half", "not UTF-8", "zeros", "null", "list", "text", "empty", "without fields",
        "deep lists", "deep objects", "infinite", "a long number",
    ],
)  # fmt: skip
def test_a_bad_line_between_good_ones_is_reported_and_left_out(tmp_path, line):
    new_run(tmp_path, trial(number=0))
    with (tmp_path / TRIALS_FILE).open("ab") as file:
        file.write(line + b"\n")
    new_run(tmp_path, trial(number=1))
    run = read_run(tmp_path)
    assert [each.round for each in run.trials] == [0, 1]
    assert [problem.partition(" is left out: ")[0] for problem in run.problems] == [f"{TRIALS_FILE}, line 2"]


def test_records_of_a_newer_version_are_refused(tmp_path):
    new_run(tmp_path, trial())
    newer = trial().model_copy(update={"schema_version": SCHEMA_VERSION + 1})
    with (tmp_path / TRIALS_FILE).open("a") as file:
        file.write(newer.model_dump_json() + "\n")
    with pytest.raises(ResultsError, match=rf"{TRIALS_FILE} has records of schema version {SCHEMA_VERSION + 1}"):
        read_run(tmp_path)


def test_a_run_of_a_newer_version_is_refused_even_if_its_fields_are_unknown(tmp_path):
    new_run(tmp_path)
    (tmp_path / RUN_FILE).write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "cellz": []}))
    with pytest.raises(
        ResultsError, match=f"this parbench reads version {SCHEMA_VERSION}: use the parbench that wrote"
    ):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda text: "", "damaged"),
        (lambda text: text[:-10], "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: text.replace('"rounds": 3', '"rounds": "three"'), r"damaged: rounds: "),
        (lambda text: text.replace('"rounds": 3', '"rounds": 0'), r"damaged: rounds: "),
        (lambda text: text.replace('"rounds": 3', '"rnds": 3'), r"damaged: rounds: Field required"),
        (lambda text: text.replace('"devices": 2', '"devices": null'), r"damaged: cells\.1\.devices: "),
        (lambda text: "[" * 100_000, "damaged"),
        (lambda text: text.replace('"scenario": {', '"scenario": {"deep": ' + "[" * 100_000), "damaged"),
        (lambda text: text.replace('"rounds": 3', '"rounds": 1e999'), r"damaged: rounds: "),
        (lambda text: b"\xff" + text.encode(), "cannot be read"),
    ],
    ids=[
        "empty",
        "cut off",
        "a list",
        "a word",
        "out of range",
        "missing field",
        "deep inside",
        "nested",
        "nested inside",
        "infinite",
        "not UTF-8",
    ],
)
def test_a_damaged_run_file_is_a_sentence(tmp_path, damage, sentence):
    path = new_run(tmp_path) / RUN_FILE
    damaged = damage(path.read_text())
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(ResultsError, match=rf"{RUN_FILE}.* {sentence}|{RUN_FILE} is {sentence}"):
        read_run(tmp_path)


def test_a_folder_without_a_run_is_a_sentence(tmp_path):
    with pytest.raises(ResultsError, match=f"holds no run: it has no {RUN_FILE}"):
        read_run(tmp_path)


def test_a_run_file_that_is_a_folder_is_a_sentence(tmp_path):
    (tmp_path / RUN_FILE).mkdir()
    with pytest.raises(ResultsError, match="cannot be read"):
        read_run(tmp_path)


AS_NOBODY = """
import os, sys
from pathlib import Path
from parbench.results.store import read_run
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)
read_run(Path())
"""


@pytest.mark.parametrize("name", [RUN_FILE, TRIALS_FILE])
def test_files_that_may_not_be_read_are_a_sentence(tmp_path, name):
    (new_run(tmp_path, trial()) / name).chmod(0)
    tmp_path.chmod(0o755)
    command = [sys.executable, "-c", AS_NOBODY, tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"ResultsError: {name} cannot be read" in ended.stderr


LOCKLESS = """
import ctypes, struct, sys
from pathlib import Path
from parbench.results.store import Store
# A seccomp filter: flock answers ENOSYS, as on Lustre mounted without it, and every other call is let through.
load, jump, give = 0x20, 0x15, 0x06
rules = [(load, 0, 0, 0), (jump, 0, 1, FLOCK), (give, 0, 0, 0x00050000 | 38), (give, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
prctl = ctypes.CDLL(None, use_errno=True).prctl
filters = ctypes.create_string_buffer(struct.pack("@HP", len(rules), ctypes.addressof(program)))
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, filters, 0, 0):
    sys.exit(77)
with Store.locked(Path(sys.argv[1])):
    pass
"""


def test_a_file_system_without_locks_is_told_from_a_folder_in_use(tmp_path):
    flock = {"x86_64": 73, "aarch64": 32}.get(platform.machine())
    if flock is None:
        pytest.skip(f"the number of flock(2) on {platform.machine()} is not known here")
    command = [sys.executable, "-c", LOCKLESS.replace("FLOCK", str(flock)), tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode == 77:
        pytest.skip("the kernel takes no seccomp filter here")
    assert f"{tmp_path} cannot be locked, which keeps two runs apart: Function not implemented" in ended.stderr
    assert "in use" not in ended.stderr


def fill(opened: Store, size: int) -> None:
    for number in count():
        opened.append(trial(number=number, log_tail="x" * size))


@pytest.mark.parametrize("size", [500, 3000, 5000, 20_000, 100_000])
def test_a_full_disk_leaves_no_half_trial(mount, size):
    folder = mount("full")
    new_run(folder)
    with Store.locked(folder) as opened:
        with pytest.raises(ResultsError, match=f"cannot be written to {folder}: No space left on device"):
            fill(opened, size)
        run = read_run(folder)
        assert [each.round for each in run.trials] == list(range(len(run.trials)))
        assert len(run.trials) >= 40_000 // (size + 1500)
        assert run.problems == ()
        assert (folder / TRIALS_FILE).read_bytes()[-1:] in (b"\n", b"")


def test_a_full_disk_keeps_the_plan_that_was_there(mount):
    folder = mount("full")
    new_run(folder)
    bigger = run_record(scenario={"description": "x" * 100_000})
    with Store.locked(folder) as opened, pytest.raises(ResultsError, match="No space left on device"):
        opened.begin(bigger)
    assert read_run(folder).record == RECORD
    assert {path.name for path in folder.iterdir()} == {"lock", RUN_FILE}


def test_a_disk_without_room_for_the_lock_is_a_sentence(mount):
    folder = mount("full")
    with pytest.raises(OSError, match="No space left"), (folder / "filler").open("wb") as file:
        file.write(b"x" * 100_000)
    with pytest.raises(ResultsError, match="No space left on device"), Store.locked(folder):
        pass


def test_a_read_only_folder_is_a_sentence(mount):
    folder = mount("sealed", "ro")
    sentence = r"results cannot be kept in .*Read-only file system.*--out"
    for place in (folder, folder / "run"):
        with pytest.raises(ResultsError, match=sentence), Store.locked(place):
            pass


def test_a_folder_below_a_file_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"results cannot be kept in .*--out"), Store.locked(tmp_path / "file/run"):
        pass


def test_a_run_is_found_by_folder_by_id_and_as_the_latest(tmp_path, monkeypatch):
    results = tmp_path / "results"
    old, new = aged(results / "b-old", 1000), aged(results / "a-new", 2000)
    elsewhere = aged(tmp_path / "elsewhere", 3000)
    monkeypatch.chdir(tmp_path)
    assert find_run("latest", results) == new
    assert find_run("b-old", results) == old
    assert find_run(str(elsewhere), results) == elsewhere
    assert find_run("elsewhere", results).resolve() == elsewhere


@pytest.mark.parametrize(
    "selector",
    [
        "nothing",
        "../outside",
        "/nowhere/outside",
        "nul\x00here",
        "\x00",
        "x" * 300,
        "x/" * 3000,
        "planted",
        ".",
        "..",
        "",
        "-rf",
        "new\nline",
        "*",
    ],
)
def test_a_selector_of_no_run_is_a_sentence_and_reaches_nothing_outside(tmp_path, monkeypatch, selector):
    results, here = tmp_path / "results", tmp_path / "a" / "b"
    new_run(results / "inside")
    outside = new_run(tmp_path / "outside")
    (results / "planted").symlink_to(outside)
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(ResultsError, match="there is no run '"):
        find_run(selector, results)


def test_runs_are_listed_oldest_first_and_by_name_where_they_are_equally_old(tmp_path):
    for name, seconds in [("c", 2000), ("a", 3000), ("b", 2000), ("z", 1000)]:
        aged(tmp_path / name, seconds)
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_text("")
    assert [folder.name for folder in list_runs(tmp_path)] == ["z", "b", "c", "a"]


def test_runs_that_cannot_be_read_are_passed_over_and_said(tmp_path):
    mine = aged(tmp_path / "mine", 1000)
    aged(tmp_path / "of-another", 2000)
    (tmp_path / "of-another" / RUN_FILE).write_text(run_record(scenario={"name": "another"}).model_dump_json())
    for name, text in [("torn", "{"), ("foreign", '{"id": "of another program"}'), ("newer", '{"schema_version": 99}')]:
        (tmp_path / name).mkdir()
        (tmp_path / name / RUN_FILE).write_text(text)
    said: list[str] = []
    assert latest_of("made_up", tmp_path, said.append) == mine
    assert sorted(sentence.split()[0] for sentence in said) == [
        str(tmp_path / name / RUN_FILE) for name in ("foreign", "newer", "torn")
    ]
    assert all(sentence.endswith("; this run is left out") for sentence in said)
    assert latest_of("unheard of", tmp_path, said.append) is None


def test_what_was_planted_among_the_runs_is_not_listed(tmp_path):
    results = tmp_path / "results"
    run = aged(results / "run", 1000)
    (results / "linked").symlink_to(aged(tmp_path / "outside", 9000))
    (results / "dangling").mkdir()
    (results / "dangling" / RUN_FILE).symlink_to(tmp_path / "nowhere")
    (results / "folder" / RUN_FILE).mkdir(parents=True)
    assert list_runs(results) == [run]
    assert find_run("latest", results) == run


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_without_runs_the_latest_is_a_sentence_that_says_how_to_start_one(tmp_path, name):
    (tmp_path / "empty").mkdir()
    assert list_runs(tmp_path / name) == []
    with pytest.raises(ResultsError, match=r"there is no run in .* yet; start one with: parbench run"):
        find_run("latest", tmp_path / name)


@pytest.mark.parametrize(
    "changes",
    [{"window_s": float("nan")}, {"losses": (float("inf"),)}, {"steps": 1.5}, {"parameters": "1"}],
    ids=["NaN", "infinite", "half a step", "text"],
)
def test_a_record_takes_no_other_values(changes):
    with pytest.raises(ValidationError):
        JobRecord(**{**job().model_dump(), **changes})


def test_a_record_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        trial().status = "failed"
