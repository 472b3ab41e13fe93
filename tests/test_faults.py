"""Faults made to happen for real in a foreign package's strategy: what is recorded, and that the others go on."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import CommandLine

SCENARIO = """
name: faults
workloads:
  bag:
    model: {kind: bag}
    data: {source: synthetic, vocab_size: 16, tokens: 2000}
    seq_len: 4
    global_batch: 8
strategies:
  - single
  - averaging
  - misbehaving: {how: HOW}
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, deadline_s: 5}
"""


def run(parbench: CommandLine, how: str) -> tuple[Any, dict[str, Any], str]:
    """Runs the scenario; the finished process, the misbehaving cell's row, and its trial's log."""
    (parbench.folder / "faults.yaml").write_text(SCENARIO.replace("HOW", how))
    ended = parbench("run", "faults.yaml", "--out", "out")
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    others = [row for row in rows if row["strategy"] != "misbehaving"]
    assert {(row["status"], row["parity"]) for row in others} == {("ok", "reference"), ("ok", "ok")}, ended.stderr
    trials = [json.loads(line) for line in (parbench.folder / "out" / "trials.jsonl").read_text().splitlines()]
    log = next(trial["log_tail"] for trial in trials if trial["cell"] == "bag/misbehaving/2")
    row = next(row for row in rows if row["strategy"] == "misbehaving" and row["devices"] == 2)
    return ended, row, log


@pytest.mark.parametrize(
    ("how", "status", "reason", "log"),
    [
        ("raise", "failed", "rank 1 failed in warm-up: RuntimeError: the third step always fails", "misbehave"),
        ("exit", "failed", "rank 1 failed in warm-up: SystemExit: 7", "SystemExit"),
        ("leave", "failed", "rank 1 ended with exit code 0 in warm-up, without a word", ""),
        ("kill", "killed", "rank 1 was ended by SIGKILL in warm-up", ""),
        ("memory", "out_of_memory", "rank 1 failed in warm-up: RuntimeError", "DefaultCPUAllocator"),
        ("hang", "timed_out", "still running after", "in misbehave"),
        ("hang_apart", "timed_out", "still running after", ""),
        ("nan", "failed", "FloatingPointError: the loss of step 2 is nan", "FloatingPointError"),
    ],
)
def test_a_fault_fails_its_own_cell_with_its_reason_and_the_others_go_on(
    parbench_with_plugins: CommandLine, how: str, status: str, reason: str, log: str
) -> None:
    ended, row, tail = run(parbench_with_plugins, how)
    assert ended.returncode == 3
    assert row["status"] == status
    assert reason in row["reason"]
    assert row["speedup"] is None
    assert log in tail
    assert reason in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


def test_losses_that_drift_are_not_comparable(parbench_with_plugins: CommandLine) -> None:
    ended, row, _ = run(parbench_with_plugins, "drift")
    assert ended.returncode == 3
    assert (row["status"], row["parity"], row["speedup"]) == ("ok", "failed", None)
    assert "not comparable: losses differ from the reference by" in row["reason"]


def test_what_a_rank_started_ends_with_it(parbench_with_plugins: CommandLine) -> None:
    run(parbench_with_plugins, "children")
    assert not [process for process in psutil.process_iter(["cmdline"]) if "3600.25" in (process.info["cmdline"] or [])]


def wait_for(condition: Any, what: str) -> Any:
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came: {what}")


def hanging(parbench: CommandLine) -> tuple[Any, list[psutil.Process]]:
    """parbench in the middle of a trial that does not end, after finished ones, and that trial's ranks."""
    scenario = SCENARIO.replace("HOW", "hang").replace("deadline_s: 5", "deadline_s: 600")
    (parbench.folder / "faults.yaml").write_text(scenario)
    process = parbench.start("run", "faults.yaml", "--out", "out", "--set", "measure.seed=0")
    trials = parbench.folder / "out" / "trials"

    def stuck() -> list[psutil.Process]:
        assert process.poll() is None, process.communicate()
        if not list(trials.glob("r000-*/cell.json")):
            return []
        current = max(trials.glob("r000-*/cell.json"), key=lambda path: path.stat().st_mtime_ns).parent
        if json.loads((current / "cell.json").read_text())["strategy"] != "misbehaving":
            return []
        records = [json.loads(path.read_text()) for path in current.glob("rank*.json")]
        started = [record for record in records if record["stage"] == "warm-up"]
        return [psutil.Process(record["pid"]) for record in started] if len(started) == 2 else []

    return process, wait_for(stuck, "the hanging trial")


def test_ctrl_c_keeps_finished_trials_and_says_how_to_go_on_and_resume_measures_nothing_twice(
    parbench_with_plugins: CommandLine,
) -> None:
    parbench = parbench_with_plugins
    process, ranks = hanging(parbench)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "parbench run faults.yaml --resume --out out --set measure.seed=0" in errors
    assert "Traceback" not in errors
    assert not any(rank.is_running() for rank in ranks)

    def measured() -> list[tuple[str, str, int]]:
        lines = (parbench.folder / "out" / "trials.jsonl").read_text().splitlines()
        return [(trial["purpose"], trial["key"], trial["round"]) for trial in map(json.loads, lines)]

    before = measured()
    resumed = parbench("run", "faults.yaml", "--out", "out", "--resume", "--set", "measure.deadline_s=2")
    assert resumed.returncode == 3, resumed.stderr
    after = measured()
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)
    assert f"{len(before)} measured before are kept" in resumed.stderr


def test_kill_9_of_parbench_leaves_no_orphan(parbench_with_plugins: CommandLine) -> None:
    process, ranks = hanging(parbench_with_plugins)
    assert all(rank.is_running() for rank in ranks)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True), *ranks]
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_two_runs_at_once_do_not_meet(parbench_with_plugins: CommandLine, tmp_path: Path) -> None:
    parbench = parbench_with_plugins
    (parbench.folder / "faults.yaml").write_text(SCENARIO.replace("HOW", "raise"))
    both = [parbench.start("run", "faults.yaml", "--only", "*averaging*", "--out", f"out{n}") for n in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    third = parbench("run", "faults.yaml", "--only", "*averaging*", "--out", "out0")
    assert third.returncode == 2
    assert "holds a run already" in third.stderr
