"""`parbench doctor --save`: a machine's own speeds, measured into a file, or a sentence and nothing left behind."""

import json
import signal
import tempfile
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from parbench.cli import machine as doctor
from parbench.cli.machine import print_machine, require_writable
from parbench.errors import NothingMeasuredError, UsageError
from parbench.records.machine import CurveRecord, DeviceRecord, FitRecord, MachineRecord, PointRecord
from parbench.scenario.machine import read_machine
from tests.conftest import CommandLine
from tests.faults.scenarios import alive
from tests.support.waiting import PATIENCE_S, ending, wait_for


def point(size: int, seconds: float, bandwidth: float) -> PointRecord:
    return PointRecord(
        size=size,
        seconds=seconds,
        low_s=seconds,
        high_s=seconds,
        samples=15,
        algorithm_bandwidth=bandwidth,
        bus_bandwidth=bandwidth,
    )


MACHINE = MachineRecord(
    measured_at="2026-01-01T00:00:00+00:00",
    parbench="0.1.0",
    backend="gloo",
    device=DeviceRecord(
        kind="cpu", name="[red]\x1b[31mCPU", count=2, matmul_flops={"fp32": 6.12e10}, copy_bytes_per_s=9.8e9
    ),
    curves=(
        CurveRecord(
            operation="all_reduce",
            ranks=2,
            points=(point(1024, 1.12e-4, 9.1e6), point(2**20, 1.2e-3, 8.7e8)),
            fit=FitRecord(latency_s=1.1e-4, bus_bandwidth=9e8, residual=0.04),
            left_out="from 4,194,304 bytes on it did not fit into the time",
        ),
        CurveRecord(operation="reduce_scatter", ranks=2, unavailable="RuntimeError: not \x1bhere"),
        CurveRecord(operation="all_to_all", ranks=2, unavailable="RuntimeError: not \x1bhere"),
        CurveRecord(operation="p2p", ranks=4, unavailable="failed: rank 3 was ended by SIGKILL"),
    ),
    environment_digest="0123456789abcdef",
)


def printed(record: MachineRecord) -> str:
    console = Console(file=StringIO(), width=200, highlight=False, emoji=False)
    print_machine(record, console)
    return console.file.getvalue()


def test_people_see_rates_curves_and_what_is_missing_of_them() -> None:
    text = printed(MACHINE)
    assert "fp32 61.2 GFLOP/s, copies 9.80 GB/s" in text
    assert "2 ranks over gloo" in text
    rows = {line.split()[1] + line.split()[2]: line for line in text.splitlines() if "iB" in line}
    assert "112 µs" in rows["1KiB"]
    assert "9.10 MB/s" in rows["1KiB"]
    assert "–" in rows["1MiB"], "there is no all-to-all"
    assert "870 MB/s" in rows["1MiB"]
    assert "110 µs  900 MB/s" in text
    assert "4%" in text
    assert "all_reduce between 2 ranks: from 4,194,304 bytes on it did not fit into the time" in text
    assert "reduce_scatter, all_to_all between 2 ranks: RuntimeError: not" in text
    assert "4 ranks over" not in text, "there is no point in it"
    assert "p2p between 4 ranks: failed: rank 3 was ended by SIGKILL" in text
    assert "[red]" in text
    assert "\x1b" not in text


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    file = tmp_path / "machine.yaml"
    require_writable(file, force=False)
    file.write_text("mine")
    with pytest.raises(UsageError, match=r"machine.yaml is there already; --force replaces it"):
        require_writable(file, force=False)
    require_writable(file, force=True)


def test_where_no_file_can_be_it_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="is a folder; name the file to write"):
        require_writable(tmp_path, force=True)
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere for machine.yaml"):
        require_writable(tmp_path / "nowhere" / "machine.yaml", force=False)
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match=r"machine.yaml cannot be written"):
        require_writable(tmp_path / "machine.yaml", force=False)


class FakeSurvey:
    """A survey that has been, with this result."""

    def __init__(self, result: MachineRecord | Exception, failures: dict[int, str]) -> None:
        self.result = result
        self.failures = failures

    def __call__(self, *_: object) -> "FakeSurvey":
        return self

    def run(self, budget_s: float) -> MachineRecord:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def without_ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A launcher that starts nothing; what is done with it is kept."""
    done: list[str] = []

    class Idle:
        def __init__(self, worker: str) -> None:
            done.append(worker)

        def start(self) -> None:
            done.append("start")

        def close(self) -> None:
            done.append("close")

    monkeypatch.setattr(doctor, "LocalLauncher", Idle)
    yield done
    assert done == ["parbench.measure.curves", "start", "close"] * (len(done) // 3)


@pytest.mark.usefixtures("without_ranks")
def test_what_was_measured_is_kept_also_where_a_launch_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for failures, is_good in (({}, True), ({2: "timed_out: still running"}, False)):
        monkeypatch.setattr(doctor, "Survey", FakeSurvey(MACHINE, failures))
        assert doctor.measure_into(tmp_path / "machine.yaml", 1) is is_good
        assert read_machine(tmp_path / "machine.yaml") == MACHINE
        assert ("2 ranks: timed_out: still running" in capsys.readouterr().err) is not is_good
        if is_good:
            (tmp_path / "machine.yaml").unlink()


@pytest.mark.usefixtures("without_ranks")
def test_where_nothing_was_measured_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "Survey", FakeSurvey(NothingMeasuredError("nothing was measured"), {}))
    with pytest.raises(NothingMeasuredError):
        doctor.measure_into(tmp_path / "machine.yaml", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_refused_with_exit_code_2_before_anything_else(parbench: CommandLine) -> None:
    (parbench.folder / "machine.yaml").write_text("mine")
    ended = parbench("doctor", "--save", "machine.yaml")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "machine.yaml is there already; --force replaces it\n"
    assert (parbench.folder / "machine.yaml").read_text() == "mine"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files with a short name, as the path of the fork server's socket must be short."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_machine_measures_itself_into_a_file(parbench: CommandLine, scratch: Path) -> None:
    parbench.environment["TMPDIR"] = str(scratch)
    ended = parbench("doctor", "--save", "machine.yaml", "--budget", "1")
    assert ended.returncode == 0, ended.stderr
    record = read_machine(parbench.folder / "machine.yaml")
    assert record.device.matmul_flops["fp32"] > 0
    assert "steadiness" in ended.stdout, "the checks come first"
    assert "GFLOP/s" in ended.stdout or "MFLOP/s" in ended.stdout or "TFLOP/s" in ended.stdout
    assert "[1/" in ended.stderr
    assert "This machine's speeds are in machine.yaml" in ended.stderr
    assert list(scratch.glob("parbench-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_neither_ranks_nor_files(
    parbench: CommandLine, scratch: Path, number: signal.Signals
) -> None:
    parbench.environment["TMPDIR"] = str(scratch)
    process = parbench.start("doctor", "--save", "machine.yaml")

    def rank_at_work() -> psutil.Process | None:
        for file in scratch.glob("parbench-*/*/rank0.json"):
            record = json.loads(file.read_text())
            if record["stage"] == "curves":
                return psutil.Process(record["pid"])
        return None

    rank = wait_for(rank_at_work, "a rank at work", ended=lambda: ending(process))
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 128 + number
    assert f"Interrupted by {number.name}; nothing was saved" in said
    assert not alive(rank.pid, time.time())
    assert list(scratch.glob("parbench-*")) == []
    assert list(parbench.folder.iterdir()) == []
