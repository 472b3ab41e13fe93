"""Faults of what parbench prints on: a terminal that is gone, a pipe that nobody reads any more, a full disk."""

import os
import shlex
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from parbench.results.store import read_run
from tests.conftest import CommandLine
from tests.faults.scenarios import alive, scenario, trials_of
from tests.support.waiting import PATIENCE_S, ending, wait_for


@pytest.fixture
def parbench(parbench_with_plugins: CommandLine) -> CommandLine:
    (parbench_with_plugins.folder / "faults.yaml").write_text(scenario("single").replace("rounds: 1", "rounds: 3"))
    return parbench_with_plugins


def on_terminal(parbench: CommandLine, *arguments: object) -> tuple[subprocess.Popen[bytes], int]:
    """parbench as the leader of a terminal's session, as a shell starts it, and the other end of the terminal."""
    mine, theirs = os.openpty()
    process = subprocess.Popen(
        parbench.command(*arguments),
        cwd=parbench.folder,
        env={**parbench.environment, "TERM": "xterm"},
        preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - one thread here
    )
    os.close(theirs)
    return process, mine


def test_row_10_a_lost_terminal(parbench: CommandLine) -> None:
    stuck = scenario("single", {"misbehaving": {"how": "hang"}}).replace("deadline_s: 600", "deadline_s: 3600")
    (parbench.folder / "faults.yaml").write_text(stuck)
    out = parbench.folder / "out"
    process, terminal = on_terminal(parbench, "run", "faults.yaml", "--out", "out")
    try:
        wait_for(
            lambda: list(out.glob("trials/*/rank1.json")),
            "the trial that does not end",
            ended=lambda: ending(process),
        )
        kept = trials_of(out)
        family = psutil.Process(process.pid).children(recursive=True)
        os.close(terminal)
        assert process.wait(PATIENCE_S) == 129
    finally:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert left == []
    assert not any(alive(child.pid, time.time()) for child in family)
    assert trials_of(out) == kept != []
    assert read_run(out).problems == ()


@pytest.mark.parametrize("reader", ["terminal", "pipe"])
def test_a_campaign_goes_on_when_nobody_reads_what_it_prints(parbench: CommandLine, reader: str) -> None:
    text = (parbench.folder / "faults.yaml").read_text()
    (parbench.folder / "second.yaml").write_text(text.replace("name: faults", "name: second"))
    words = parbench.command("run", "faults.yaml", "second.yaml", "--out", "out")
    mine, theirs = os.openpty() if reader == "terminal" else os.pipe()
    process = subprocess.Popen(
        words, cwd=parbench.folder, env=parbench.environment, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    assert os.read(mine, 1)
    os.close(mine)
    assert process.wait(PATIENCE_S) == 0
    for name in ("faults", "second"):
        trials = read_run(parbench.folder / "out" / name).trials
        assert [trial.status for trial in trials if trial.purpose == "measure"] == ["ok"] * 3


def test_a_campaign_runs_where_messages_are_closed(parbench: CommandLine) -> None:
    command = shlex.join(parbench.command("run", "faults.yaml", "--out", "out"))
    ended = subprocess.run(
        ["sh", "-c", f"{command} 2>&-"], cwd=parbench.folder, env=parbench.environment, capture_output=True, check=False
    )
    assert ended.returncode == 0
    assert b"single" in ended.stdout
    assert read_run(parbench.folder / "out").problems == ()


def test_a_campaign_goes_on_when_the_disk_of_its_log_is_full(parbench: CommandLine) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            parbench.command("run", "faults.yaml", "--out", "out"),
            cwd=parbench.folder,
            env=parbench.environment,
            stdout=full,
            stderr=full,
            check=False,
        )
    assert ended.returncode == 0
    assert len([trial for trial in trials_of(parbench.folder / "out") if trial["purpose"] == "measure"]) == 3
    assert parbench("table", "out").returncode == 0
