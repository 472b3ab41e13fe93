"""Where the secret of nodes comes from, what is none, and what is served without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parbench.errors import UsageError
from parbench.launch.base import Site
from parbench.launch.secret import ADVICE, VARIABLE, read_secret, require_loopback
from parbench.launch.slurm.commands import step_environment
from parbench.launch.torchrun.launcher import TorchrunLauncher
from tests.conftest import CommandLine
from tests.launch.hosts import SECRET
from tests.launch.test_torchrun import SCENARIO

ELSEWHERE = ("--launcher", "torchrun", "--nodes", 2, "--rendezvous", "192.0.2.1:29400", "--rendezvous-timeout", 1)


def write(path: Path, content: str, mode: int = 0o600) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


def test_a_secret_is_a_files_text_or_a_variables_which_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, SECRET)
    assert read_secret(write(tmp_path / "secret", f"{'s' * 40}\n")) == b"s" * 40
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, SECRET)
    assert read_secret(None) == SECRET.encode()
    assert VARIABLE not in os.environ
    assert read_secret(None) is None


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (None, 0, "--secret-file {} cannot be read: No such file or directory; make one with "),
        ("", 0o600, "--secret-file {} is empty; make one with "),
        (" \n", 0o600, "--secret-file {} is empty; make one with "),
        (
            "s" * 31 + "\n",
            0o600,
            "--secret-file {} is too short for a secret: it has 31 characters, and needs 32; make",
        ),
        (
            "s" * 5000,
            0o600,
            "--secret-file {} has more than 4096 bytes, too long for a secret; make one with ",
        ),
        ("s" * 40, 0o640, "--secret-file {} can be read by others than its owner (mode 640); "),
        ("s" * 40, 0o604, "--secret-file {} can be read by others than its owner (mode 604); "),
    ],
)
def test_a_file_that_is_no_secret_is_refused(tmp_path, content, mode, sentence):
    path = tmp_path / "secret"
    if content is not None:
        write(path, content, mode)
    with pytest.raises(UsageError) as caught:
        read_secret(path)
    assert str(caught.value).startswith(sentence.format(path))
    assert "sss" not in str(caught.value)


def test_what_is_no_file_is_refused_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match=f"--secret-file {path} is not a regular file; make one with "):
            read_secret(path)


@pytest.mark.parametrize(("text", "problem"), [("", " is empty"), ("s" * 31, " is too short for a secret: it has 31 ")])
def test_a_variable_that_is_no_secret_is_refused(monkeypatch, text, problem):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match=f"^{VARIABLE}{problem}"):
        read_secret(None)


def test_the_advice_makes_a_secret(tmp_path):
    command = ADVICE.partition("make one with ")[2].partition(", and")[0].replace("FILE", "secret")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert len(read_secret(tmp_path / "secret") or b"") == 44


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_without_a_secret_nodes_meet_on_loopback(host):
    require_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "fe80::1%lo", "192.0.2.1", "no-such-host.invalid"])
def test_without_a_secret_nodes_meet_nowhere_else(host):
    with pytest.raises(UsageError, match=f"--rendezvous {host}: without a secret, the rendezvous must be "):
        require_loopback(host)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_without_a_secret_is_bad_usage_before_anything_starts(parbench: CommandLine, rank: int):
    (parbench.folder / "nodes.yaml").write_text(SCENARIO)
    ended = parbench("run", "nodes.yaml", *ELSEWHERE, "--node-rank", rank)
    assert (ended.returncode, ended.stdout) == (2, "")
    (sentence,) = (line for line in ended.stderr.splitlines() if "without a secret" in line)
    assert sentence.startswith("--rendezvous 192.0.2.1: without a secret, the rendezvous must be a loopback address")
    assert sentence.endswith("or its text in PARBENCH_SECRET")
    assert not (parbench.folder / "results").exists() or not list((parbench.folder / "results").iterdir())


def test_a_secret_is_for_several_nodes(tmp_path):
    with pytest.raises(UsageError, match="--secret-file: add --nodes, the number of nodes that run this command"):
        TorchrunLauncher.at(Site(secret_file=tmp_path / "secret"))
    with pytest.raises(UsageError, match=r"--secret-file .*/secret cannot be read: "):
        TorchrunLauncher.at(Site(nodes=2, node_rank=0, rendezvous="h:1", secret_file=tmp_path / "secret"))


def test_nobody_who_could_hand_it_on_to_ranks_sees_it(monkeypatch):
    monkeypatch.setenv(VARIABLE, SECRET)
    assert SECRET not in step_environment().values()
    ended = subprocess.run([sys.executable, "-c", ENVIRONMENT_OF_RANKS], capture_output=True, text=True, check=True)
    assert "PARBENCH_FAMILY" in ended.stdout
    assert SECRET not in ended.stdout


ENVIRONMENT_OF_RANKS = """
from pathlib import Path
from parbench.launch.fork_server import ForkServer
forks = ForkServer()
forks.ready()
print(Path(f"/proc/{forks.pid}/environ").read_text())
forks.close()
"""
