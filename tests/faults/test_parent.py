"""Faults that befall parbench itself while ranks run: signals, and its own sudden death."""

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from tests.conftest import CommandLine
from tests.faults.scenarios import alive, offspring, scenario, trials_of
from tests.support.mps import install_mps, known_of_daemon, prepare_trial, seen_by_ranks
from tests.support.waiting import PATIENCE_S, ending, wait_for

T = TypeVar("T")

RUN = ("run", "faults.yaml", "--out", "out")
LAUNCHING = """
import sys
from pathlib import Path
from parbench.launch.local.launcher import LocalLauncher
LocalLauncher().launch(Path(sys.argv[1]), processes=2, deadline_s=3600)
"""
LEAVING = """
import os, subprocess
from torch import nn


def build(vocab_size, seq_len):
    if "RANK" in os.environ:
        for session in (False, True):
            subprocess.Popen(["sleep", os.environ["OFFSPRING"]], start_new_session=session)
    return nn.Sequential(nn.Embedding(vocab_size, 8), nn.Linear(8, vocab_size))
"""


@dataclass
class Stuck:
    """parbench in a trial that does not end, after finished ones."""

    parbench: CommandLine
    process: subprocess.Popen[str]
    ranks: list[psutil.Process]
    terminal: int | None = None

    @property
    def kept(self) -> list[tuple[str, str, int]]:
        return [(each["purpose"], each["key"], each["round"]) for each in trials_of(self.parbench.folder / "out")]

    @property
    def family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True), *self.ranks, *offspring()]

    def has_lost_one(self) -> bool:
        return not all(alive(rank.pid, time.time()) for rank in self.ranks)

    def gone(self) -> bool:
        return not any(alive(rank.pid, time.time()) for rank in self.ranks)

    def read_terminal(self) -> str:
        """All that was printed on the terminal."""
        assert self.terminal is not None
        told = b""
        try:
            while received := os.read(self.terminal, 1 << 16):
                told += received
        except OSError:  # that is how Linux says that the other end is closed
            pass
        return told.decode()


def ignores_abort(rank: psutil.Process) -> bool:
    found = re.search(r"^SigIgn:\s+([0-9a-f]+)$", Path(f"/proc/{rank.pid}/status").read_text(), re.MULTILINE)
    return bool(found and int(found[1], 16) >> (signal.SIGABRT - 1) & 1)


@pytest.fixture
def stuck(parbench_with_plugins: CommandLine) -> Iterator[object]:
    started: list[subprocess.Popen[str]] = []
    parbench = parbench_with_plugins

    def start(how: str, *options: str, terminal: bool = False, command: Sequence[str] = RUN) -> Stuck:
        text = scenario("single", {"misbehaving": {"how": how}}).replace("deadline_s: 600", "deadline_s: 3600")
        (parbench.folder / "faults.yaml").write_text(text)
        arguments = (*command, "--set", "measure.seed=0", *options)
        mine = None
        if terminal:
            mine, theirs = pty.openpty()
            process = subprocess.Popen(
                parbench.command(*arguments),
                cwd=parbench.folder,
                env={**parbench.environment, "TERM": "xterm"},
                text=True,
                preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - one thread here
            )
            os.close(theirs)
        else:
            process = parbench.start(*arguments)
        started.append(process)

        def third_step() -> list[psutil.Process]:
            for cell in parbench.folder.glob("**/trials/*/cell.json"):
                # A trial that is being prepared has no whole assignment yet.
                text = cell.read_text()
                if text.endswith("}") and json.loads(text)["strategy"] == "misbehaving":
                    records = [json.loads(path.read_text()) for path in cell.parent.glob("rank*.json")]
                    ready = [record for record in records if record["stage"] in ("steps", "warm-up")]
                    return [psutil.Process(each["pid"]) for each in ready] if len(ready) == 2 else []
            return []

        def until(condition: Callable[[], T], what: str) -> T:
            return wait_for(condition, what, ended=lambda: ending(process))

        ranks = until(third_step, "the trial that does not end")
        if how in ("hold", "offspring"):
            until(lambda: len(offspring()) == (1 if how == "hold" else 2), "what the rank starts before it hangs")
        if how == "stubborn":
            until(lambda: any(map(ignores_abort, ranks)), "a rank that is stubborn")
        return Stuck(parbench, process, ranks, mine)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def resumed(found: Stuck) -> None:
    """Going on measures what is missing, and nothing twice."""
    before = found.kept
    assert before
    ended = found.parbench("run", "faults.yaml", "--out", "out", "--resume", "--set", "measure.deadline_s=2")
    assert ended.returncode == 3, ended.stderr
    assert f"{len(before)} measured before are kept" in ended.stderr
    assert found.kept[: len(before)] == before
    assert max(Counter(found.kept).values()) == 1


@pytest.mark.parametrize("launcher", ["local", "torchrun"])
def test_row_07_what_a_rank_that_ended_well_has_left_behind(parbench: CommandLine, launcher: str) -> None:
    (parbench.folder / "leaving.py").write_text(LEAVING)
    text = scenario("single").replace("{kind: bag}", "{kind: custom, build: leaving.py:build}")
    (parbench.folder / "faults.yaml").write_text(text.replace("counts: [2]", "counts: [1]"))
    ended = parbench(*RUN, "--launcher", launcher)
    assert ended.returncode == 0, ended.stderr
    assert offspring() == []


@pytest.mark.parametrize(("how", "launcher"), [("hold", "local"), ("offspring", "local"), ("offspring", "torchrun")])
def test_row_08_kill_9_of_parbench(stuck, how: str, launcher: str) -> None:
    found = stuck(how, "--launcher", launcher)
    family = found.family
    assert len(family) >= 6  # parbench, the fork server, the guard, two ranks, and what one of them started
    found.process.kill()
    found.process.communicate()
    _, left = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert left == []


def test_row_08_kill_9_of_a_comparison_of_two_arms(stuck) -> None:
    found = stuck("hang", command=("check", "faults.yaml", "--aa"))
    family = found.family
    assert len(family) >= 8  # parbench, two servers with a fork server and a guard each, two ranks of one of them
    found.process.kill()
    found.process.communicate()
    _, left = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert left == []


def test_row_08_kill_9_of_a_launcher_whose_ranks_mps_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_mps(tmp_path / "bin", monkeypatch, "stubborn")
    trial = prepare_trial(tmp_path, hang=True)
    with tempfile.TemporaryDirectory() as temporary:
        environment = {**os.environ, "TMPDIR": temporary}
        process = subprocess.Popen([sys.executable, "-c", LAUNCHING, str(trial)], env=environment)
        try:
            wait_for(lambda: len(seen_by_ranks(trial)) == 2, "two ranks that hang", ended=lambda: ending(process))
            known = known_of_daemon(trial)
            family = [psutil.Process(known["server"]), *psutil.Process(process.pid).children(recursive=True)]
            assert known["daemon"] in {each.pid for each in family}
        finally:
            process.kill()
            process.wait()
        _, left = psutil.wait_procs(family, timeout=PATIENCE_S)
        assert left == []


def test_row_09_ctrl_c(stuck) -> None:
    found = stuck("hang", terminal=True)
    os.write(found.terminal, b"\x03")
    told = found.read_terminal()
    assert found.process.wait(PATIENCE_S) == 130
    assert "parbench run faults.yaml --resume --out out --set measure.seed=0" in told
    assert "Traceback" not in told
    assert found.gone()
    resumed(found)


def test_row_09_a_second_ctrl_c_is_immediate(stuck, tmp_path: Path) -> None:
    for _ in range(5):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        found = stuck("stubborn", terminal=True)
        family = found.family
        os.write(found.terminal, b"\x03")
        wait_for(found.has_lost_one, "the end of the other rank")
        os.write(found.terminal, b"\x03")
        in_time = not found.gone()
        told = found.read_terminal()
        # A slow machine may come to the second one only when the stubborn rank has had its two seconds and is gone.
        if in_time:
            break
    assert in_time
    assert found.process.wait(PATIENCE_S) == 130
    assert "--resume" not in told  # it did not wait for that
    assert "Traceback" not in told
    assert told.count("\x1b[?25l") == told.count("\x1b[?25h")  # the cursor is back
    _, left = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert left == []
    assert found.kept


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_row_10_sigterm_and_sighup(stuck, number: signal.Signals) -> None:
    found = stuck("hang", "--only", "*/single/*", "--only", "*/misbehaving*")
    found.process.send_signal(number)
    _, errors = found.process.communicate()
    assert found.process.returncode == 128 + number
    assert f"Interrupted by {number.name}; what was measured is kept; go on with: parbench run faults.yaml" in errors
    assert "--only '*/single/*' --only '*/misbehaving*'" in errors
    assert "Traceback" not in errors
    assert found.gone()
    assert found.kept


def test_row_11_a_taken_port_and_two_runs_at_once(parbench_with_plugins: CommandLine) -> None:
    parbench = parbench_with_plugins
    (parbench.folder / "faults.yaml").write_text(scenario("single", "averaging"))
    with socket.create_server(("127.0.0.1", 29500)):  # where torch meets unless it is told otherwise
        both = [parbench.start("run", "faults.yaml", "--out", f"out{number}") for number in range(2)]
        errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors


def test_a_temporary_folder_that_no_socket_fits_in_is_a_sentence(parbench_with_plugins: CommandLine) -> None:
    parbench = parbench_with_plugins
    (parbench.folder / "faults.yaml").write_text(scenario("averaging"))
    long = parbench.folder / ("x" * 100)
    long.mkdir()
    parbench.environment["TMPDIR"] = str(long)
    ended = parbench(*RUN)
    assert ended.returncode == 2, ended.stderr
    assert f"it needs a socket in {long}, which may be full or have too long a path" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_killed_halfway_and_resumed_every_cell_is_there_and_nothing_was_measured_twice(
    parbench_with_plugins: CommandLine,
) -> None:
    parbench, out = parbench_with_plugins, parbench_with_plugins.folder / "out"
    (parbench.folder / "faults.yaml").write_text(scenario("single", "averaging").replace("rounds: 1", "rounds: 4"))
    process = parbench.start("run", "faults.yaml", "--out", "out")
    wait_for(lambda: len(trials_of(out)) >= 5 or process.poll() is not None, "five trials")
    process.kill()
    process.communicate()
    before = (out / "trials.jsonl").read_bytes()
    ended = parbench("run", "faults.yaml", "--out", "out", "--resume")
    assert ended.returncode == 0, ended.stderr
    assert (out / "trials.jsonl").read_bytes().startswith(before)
    trials = Counter((each["purpose"], each["key"], each["round"]) for each in trials_of(out))
    assert set(trials.values()) == {1}
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    assert [(row["label"], row["devices"], row["status"], row["rounds"]) for row in rows] == [
        ("single", 1, "ok", 4),
        ("averaging", 2, "ok", 4),
    ]
