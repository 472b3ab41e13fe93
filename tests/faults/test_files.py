"""Files that are none: what waits for its other end, and what never ends."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.faults.scenarios import scenario
from tests.faults.test_folder import stored

SYNTHETIC = "{source: synthetic, vocab_size: 16, tokens: 2000}"
PLAIN = scenario("single").replace("{kind: bag}", "{kind: lstm, layers: 2, d_model: 8}")
RUN = ("run", "faults.yaml", "--out", "out")


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(str(path))


IRREGULAR: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": bound,
}


def refused(ended: subprocess.CompletedProcess[str], sentence: str, code: int = 2) -> None:
    assert (ended.returncode, ended.stderr.count("Traceback")) == (code, 0), ended.stderr
    assert sentence in ended.stderr
    assert ended.stderr.strip().splitlines()[-1].count(" cannot be read: ") == 1


@pytest.fixture
def faults(parbench: CommandLine) -> CommandLine:
    (parbench.folder / "faults.yaml").write_text(PLAIN)
    return parbench


@pytest.mark.parametrize("kind", IRREGULAR)
def test_row_35_data_that_is_no_regular_file(faults: CommandLine, kind: str) -> None:
    (faults.folder / "faults.yaml").write_text(PLAIN.replace(SYNTHETIC, "{source: text, path: text.txt}"))
    IRREGULAR[kind](faults.folder / "text.txt")
    refused(faults(*RUN), f"data.path: text.txt cannot be read: it is not a regular file but a {kind}")
    assert not (faults.folder / "out" / "run.json").exists()


def test_row_35_a_pipe_among_the_files_of_a_folder(faults: CommandLine) -> None:
    (faults.folder / "faults.yaml").write_text(PLAIN.replace(SYNTHETIC, "{source: text, path: texts}"))
    (faults.folder / "texts").mkdir()
    (faults.folder / "texts" / "a.txt").write_text("x" * 1000)
    os.mkfifo(faults.folder / "texts" / "b.txt")
    refused(faults(*RUN), "data.path: texts/b.txt cannot be read: it is not a regular file but a pipe")


def test_row_35_more_data_than_is_read(faults: CommandLine) -> None:
    (faults.folder / "faults.yaml").write_text(PLAIN.replace(SYNTHETIC, "{source: text, path: text.txt}"))
    with (faults.folder / "text.txt").open("wb") as file:
        file.truncate(5_000_000_000)
    refused(
        faults(*RUN),
        "data.path: text.txt cannot be read: it has 5,000,000,000 bytes, and at most 1,000,000,000 are read",
    )


def test_row_35_a_read_error_names_the_file(faults: CommandLine) -> None:
    (faults.folder / "faults.yaml").write_text(PLAIN.replace(SYNTHETIC, "{source: text, path: text.txt}"))
    (faults.folder / "text.txt").symlink_to("/proc/self/mem")
    refused(faults(*RUN), "data.path: text.txt cannot be read: Input/output error")


def test_row_35_a_scenario_that_is_no_regular_file(faults: CommandLine) -> None:
    os.mkfifo(faults.folder / "other.yaml")
    refused(faults("plan", "other.yaml"), "other.yaml: cannot be read: it is not a regular file but a pipe")


def test_row_35_a_models_file_that_is_no_regular_file(faults: CommandLine) -> None:
    os.mkfifo(faults.folder / "mine.py")
    model = "workloads.bag.model={kind: custom, build: 'mine.py:build'}"
    problem = "mine.py cannot be read: it is not a regular file but a pipe"
    refused(faults("plan", "faults.yaml", "--set", model), problem)


def test_row_35_records_that_are_no_regular_files(faults: CommandLine) -> None:
    problem = "cannot be read: it is not a regular file but a pipe"
    stored(faults.folder / "results" / "mine")
    (faults.folder / "results" / "baselines").mkdir()
    os.mkfifo(faults.folder / "results" / "baselines" / "kept.json")
    check = ("check", "mine", "--baseline", "kept")
    refused(faults(*check), f"results/baselines/kept.json {problem}", code=4)
    (faults.folder / "results" / "mine" / "trials.jsonl").unlink()
    os.mkfifo(faults.folder / "results" / "mine" / "trials.jsonl")
    refused(faults("table", "mine"), f"results/mine/trials.jsonl {problem}")
    (faults.folder / "out").mkdir()
    os.mkfifo(faults.folder / "out" / "run.json")
    refused(faults(*RUN, "--resume"), f"out/run.json {problem}")


def test_row_35_a_cached_text_that_is_no_regular_file_is_made_again(faults: CommandLine) -> None:
    cache = faults.folder / "cache"
    faults.environment["PARBENCH_CACHE"] = str(cache)
    assert faults(*RUN).returncode == 0
    (kept,) = cache.glob("corpora/*.tokens")
    kept.unlink()
    os.mkfifo(kept)
    ended = faults("run", "faults.yaml", "--out", "again")
    assert ended.returncode == 0, ended.stderr
    assert kept.is_file()
