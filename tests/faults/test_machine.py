"""Faults of the machine: other people's load, a clock that jumps, and campaigns that are very long."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from parbench.campaign.run import run_campaign
from parbench.cli.progress import PlainProgress
from parbench.launch.base import Outcome
from parbench.launch.open_files import FOR_A_PROCESS, FOR_A_RANK
from parbench.plan.reading import read_plan
from parbench.results.store import read_run
from parbench.results.tables import cells_table
from parbench.system.cpus import allowed_cpus
from parbench.system.devices import detect
from tests.conftest import CommandLine
from tests.faults.scenarios import scenario, trials_of
from tests.support.debian import require
from tests.support.fake_launcher import FakeLauncher

REPOSITORY = Path(__file__).parents[2]
YEAR_S = 365 * 24 * 3600


@pytest.fixture
def noise() -> Iterator[None]:
    """Somebody else's program on every core."""
    burn = "import os\nos.sched_setaffinity(0, {%d})\nwhile True: pass"
    # In sessions of their own: kernels may share a core out by session.
    burning = [subprocess.Popen([sys.executable, "-c", burn % cpu], start_new_session=True) for cpu in allowed_cpus()]
    yield
    for process in burning:
        process.kill()
        process.wait()


def test_row_26_another_heavy_process(parbench_with_plugins: CommandLine, noise: None) -> None:
    parbench = parbench_with_plugins
    (parbench.folder / "faults.yaml").write_text(scenario("single").replace("window_s: 0.001", "window_s: 1"))
    model = "workloads.bag.model={kind: lstm, layers: 2, d_model: 64}"
    ended = parbench("run", "faults.yaml", "--out", "out", "--set", model, "--set", "workloads.bag.seq_len=32")
    assert ended.returncode == 0, ended.stderr
    (trial,) = (each for each in trials_of(parbench.folder / "out") if each["purpose"] == "measure")
    told = trial["warnings"]
    # A machine that is itself one of several may be short of cores as well, and say so.
    (warning,) = (each for each in told if each.startswith("other processes used "))
    assert warning.endswith(" of the cores of rank 0")
    assert f"(disturbed: {'; '.join(told)})" in ended.stderr
    page = parbench("report", "out")
    assert f"round 1 of bag/single/1: {'; '.join(told)}" in (parbench.folder / page.stdout.strip()).read_text()


def test_row_37_a_rank_that_stood_still(parbench_with_plugins: CommandLine) -> None:
    parbench = parbench_with_plugins
    (parbench.folder / "faults.yaml").write_text(scenario("single", {"misbehaving": {"how": "stall"}}))
    ended = parbench("run", "faults.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    trials = [each for each in trials_of(parbench.folder / "out") if each["purpose"] == "measure"]
    (trial,) = (each for each in trials if "misbehaving" in each["cell"])
    assert trial["status"] == "ok"
    # The other rank waits for it, in the same step.
    told = [
        re.fullmatch(r"a step of rank (\d) took ([\d.]+) s, where others take .+", each) for each in trial["warnings"]
    ]
    assert {found[1]: float(found[2]) >= 2 for found in told if found} == {"0": True, "1": True}
    assert "; ".join(trial["warnings"]) in ended.stderr
    page = parbench("report", "out")
    assert "a step of rank 1 took " in (parbench.folder / page.stdout.strip()).read_text()


@pytest.fixture(scope="module")
def faketime() -> Path:
    """The library that shows a process another wall clock; installed from Debian where it is missing."""
    try:
        require(["faketime"], ["faketime"])
    except LookupError as reason:
        pytest.skip(str(reason))
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("there is a faketime here, but no library of it")
    return found[0]


def test_row_28_the_clock_jumps(parbench_with_plugins: CommandLine, faketime: Path) -> None:
    parbench, ended = parbench_with_plugins, threading.Event()
    offset = parbench.folder / "offset"
    offset.write_text("+0")

    def jump() -> None:
        for number in range(100_000):
            if ended.wait(0.02):
                return
            temporary = offset.with_suffix(".tmp")
            temporary.write_text(f"{'+-'[number % 2]}{number % 7}y")
            temporary.replace(offset)

    (parbench.folder / "faults.yaml").write_text(scenario("single", "averaging").replace("0.001", "0.2"))
    parbench.environment |= {
        "LD_PRELOAD": str(faketime),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    jumping = threading.Thread(target=jump)
    jumping.start()
    try:
        run = parbench("run", "faults.yaml", "--out", "out")
    finally:
        ended.set()
        jumping.join()
    assert run.returncode == 0, run.stderr
    trials = read_run(parbench.folder / "out").trials
    years = {trial.started_at[:4] for trial in trials}
    assert years != {str(time.gmtime().tm_year)}  # the clock did jump
    for trial in trials:
        for job in (job for rank in trial.ranks for job in rank.jobs):
            times = [job.warmup_s, job.window_s, *job.step_times_s, job.stopped_s - job.started_s, trial.wall_s]
            assert all(0 <= each < YEAR_S / 12 for each in times)


class EveryTenthFails(FakeLauncher):
    """Ends every tenth trial like a rank that was killed; remembers how much the parent has in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[int] = []

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        outcome = super().launch(folder, processes=processes, deadline_s=deadline_s, nodes=nodes)
        self.launched = self.launched[-1:]
        self.memory.append(tracemalloc.get_traced_memory()[0])
        if len(self.memory) % 10:
            return outcome
        (folder / "rank0.json").unlink()
        return Outcome(exit_codes=(-9,) * processes, wall_s=1.0)


def test_row_31_a_thousand_cells(tmp_path: Path) -> None:
    """With a launcher that starts nothing; `test_row_31_many_real_trials` is the same in small with real ranks."""
    text = scenario("single", "ddp").replace("{kind: bag}", "{kind: lstm, layers: 2, d_model: 8}")
    text = text.replace("    seq_len: 4", "    seq_len: [" + ", ".join(map(str, range(1, 101))) + "]")
    (tmp_path / "many.yaml").write_text(text.replace("rounds: 1", "rounds: 5"))
    plan = read_plan(tmp_path / "many.yaml", detect(), ())
    launcher, told = EveryTenthFails(), StringIO()
    tracemalloc.start()
    try:
        run = run_campaign(plan, tmp_path / "out", launcher, PlainProgress(Console(file=told)), command=["parbench"])
    finally:
        tracemalloc.stop()
    assert len(run.trials) == len(launcher.memory)
    assert Counter(trial.purpose for trial in run.trials)["measure"] == 5 * sum(plan.launches_a_round.values()) >= 1000
    assert Counter(trial.status for trial in run.trials)["killed"] == len(launcher.memory) // 10
    statuses = Counter(cells_table(run)["status"])
    assert statuses["killed"] > 50
    assert statuses["ok"] > 10
    assert "was ended by SIGKILL" in told.getvalue()
    half = len(launcher.memory) // 2
    assert max(launcher.memory[half:]) < 1.2 * max(launcher.memory[:half]) + 2**20
    assert json.loads((tmp_path / "out" / "run.json").read_text())["id"] == "out"


def test_row_31_many_real_trials_leave_nothing_behind(tmp_path: Path) -> None:
    """The soak in small: `python -m tests.faults.soak 100` is the whole of it."""
    command = [sys.executable, "-m", "tests.faults.soak", "8", "4"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"[1-9]\d* of them made to fail; left over: nothing", ended.stdout), ended.stdout
    files, threads = map(int, re.findall(r"[+-]\d+", ended.stdout.splitlines()[1]))
    assert files <= 0  # the run's own are closed by then
    assert threads == 0


def test_row_39_too_few_descriptors(parbench_with_plugins: CommandLine) -> None:
    parbench = parbench_with_plugins
    (parbench.folder / "faults.yaml").write_text(scenario("averaging"))
    needed = FOR_A_PROCESS + 2 * FOR_A_RANK
    for allowed in (16, needed - 1):
        ended = within(allowed, parbench, "run", "faults.yaml", "--out", "out")
        assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
        told = ended.stderr.splitlines()[-1]
        assert told.startswith(f"this shell allows {allowed} open files, and ")
        assert "raise it with: ulimit -n " in told
        assert trials_of(parbench.folder / "out") == []
    assert f"and {needed} are needed for trials of 2 ranks; raise it with: ulimit -n {needed}" in told
    ended = within(needed, parbench, "run", "faults.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    assert {trial["status"] for trial in trials_of(parbench.folder / "out")} == {"ok"}


def within(files: int, parbench: CommandLine, *arguments: object) -> subprocess.CompletedProcess[str]:
    """parbench in a shell that allows so many open files."""
    limited = ["bash", "-c", 'ulimit -n "$1" && shift && exec "$@"', "bash", str(files), *parbench.command(*arguments)]
    return subprocess.run(
        limited, cwd=parbench.folder, env=parbench.environment, capture_output=True, text=True, check=False
    )
