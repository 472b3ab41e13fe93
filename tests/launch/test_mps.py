"""A daemon of MPS for the ranks of a trial, in real processes, with a stand-in for NVIDIA's program."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parbench.launch.local.launcher import LocalLauncher
from parbench.system.mps import CONTROL, LOGS, PIPES, command_daemon
from tests.faults.scenarios import alive
from tests.support.mps import install_mps, known_of_daemon, prepare_trial, seen_by_ranks
from tests.support.waiting import PATIENCE_S, ending, wait_for


@pytest.fixture
def temporary(launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for temporary files, of which nothing is to be left; the fork server has its own elsewhere."""
    launcher._forks.ready()
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


@pytest.fixture
def trial(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install_mps(tmp_path / "bin", monkeypatch)
    return prepare_trial(tmp_path)


def assert_over(trial: Path) -> None:
    known = known_of_daemon(trial)
    assert not alive(known["daemon"], time.time())
    assert not alive(known["server"], time.time())
    assert not Path(known["pipes"]).exists()


def test_ranks_are_led_to_a_daemon_that_ends_with_their_trial(trial: Path, launcher: LocalLauncher) -> None:
    outcome = launcher.launch(trial, processes=2, deadline_s=600)
    assert (outcome.reason, outcome.exit_codes, outcome.warnings) == (None, (0, 0), ())
    led = {PIPES: known_of_daemon(trial)["pipes"], LOGS: str(trial / "mps")}
    assert seen_by_ranks(trial) == [led, led]
    assert_over(trial)


def test_a_daemon_that_does_not_quit_is_killed_with_its_server(
    trial: Path, launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS", "stubborn")
    assert launcher.launch(trial, processes=2, deadline_s=600).exit_codes == (0, 0)
    assert_over(trial)


def test_a_daemon_that_cannot_be_started_is_the_reason_and_no_rank_is(
    trial: Path, launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS", "broken")
    outcome = launcher.launch(trial, processes=2, deadline_s=600)
    assert outcome.reason == "MPS could not be started: Failed to start: broken on purpose"
    assert outcome.exit_codes == (None, None)
    assert seen_by_ranks(trial) == []


def test_a_program_that_is_gone_is_the_reason(
    trial: Path, launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = launcher.launch(trial, processes=2, deadline_s=600)
    assert outcome.reason == f"MPS could not be started: {CONTROL}: No such file or directory"


def test_a_folder_that_no_socket_fits_in_is_the_reason(
    trial: Path, launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    reason = launcher.launch(trial, processes=2, deadline_s=600).reason
    assert str(reason).startswith(f"MPS could not be started: its sockets need a shorter path than {long}")
    assert list(long.iterdir()) == []


def test_an_interruption_ends_the_daemon_too(
    trial: Path, launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> bool:
        assert alive(known_of_daemon(trial)["server"], time.time())
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launcher.launch(trial, processes=2, deadline_s=600)
    assert_over(trial)


def test_a_daemon_that_runs_here_already_serves_the_ranks_and_stays(
    trial: Path, launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    logs, pipes = tmp_path / "mine", temporary / "mine"
    logs.mkdir()
    pipes.mkdir()
    monkeypatch.setenv(PIPES, str(pipes))
    monkeypatch.setenv(LOGS, str(logs))
    daemon = subprocess.Popen([CONTROL, "-f"])
    try:
        wait_for(lambda: command_daemon("get_server_list", os.environ), "the daemon", ended=lambda: ending(daemon))
        outcome = launcher.launch(trial, processes=2, deadline_s=600)
        assert outcome.exit_codes == (0, 0)
        assert outcome.warnings == ("a daemon of MPS that ran here already served the ranks, as it was set up",)
        assert not (trial / "mps").exists()
        assert daemon.poll() is None
    finally:
        command_daemon("quit", os.environ)
        assert daemon.wait(PATIENCE_S) == 0
    (pipes / "control").unlink()
    pipes.rmdir()


def test_a_trial_that_does_not_ask_for_it_starts_no_daemon(
    temporary: Path, tmp_path: Path, launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_mps(tmp_path / "bin", monkeypatch)
    trial = prepare_trial(tmp_path, mps=False)
    assert launcher.launch(trial, processes=2, deadline_s=600).exit_codes == (0, 0)
    assert not (trial / "mps").exists()
    assert seen_by_ranks(trial) == [{PIPES: None, LOGS: None}] * 2
