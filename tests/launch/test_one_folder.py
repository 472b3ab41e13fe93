"""A new launcher is one folder in `parbench/launch` with a `launcher.py`; no other file is edited."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import parbench
from tests.conftest import python_path

LAUNCHER = """
from pathlib import Path

from parbench.launch.base import Outcome
from parbench.launch.local.launcher import LocalLauncher


class InHouseLauncher(LocalLauncher):
    name = "in_house"

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        with Path("launches").open("a") as file:
            print(folder.name, file=file)
        return super().launch(folder, processes=processes, deadline_s=deadline_s, nodes=nodes)
"""
SCENARIO = """
workloads:
  lstm:
    model: {kind: lstm, layers: 1, d_model: 8}
    data: {source: synthetic, vocab_size: 16, tokens: 1000}
    seq_len: 4
    global_batch: 8
strategies: [single]
devices: {kind: cpu, counts: [1]}
measure: {rounds: 1, warmup: 5, window_s: 0.02, deadline_s: 600}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a copy of parbench that has one launcher more."""
    package = tmp_path / "site" / "parbench"
    shutil.copytree(Path(parbench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = package / "launch" / "in_house"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Launches in house."""\n')
    (folder / "launcher.py").write_text(LAUNCHER)
    (tmp_path / "tiny.yaml").write_text(SCENARIO)
    return package.parent


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": python_path(site)}
    command = [sys.executable, "-m", "parbench", "run", "tiny.yaml", *arguments]
    return subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, check=False)


def test_a_new_launcher_is_one_folder(site: Path) -> None:
    ended = run(site, "--out", "out", "--launcher", "in_house")
    assert ended.returncode == 0, ended.stderr
    folder = site.parent
    assert json.loads((folder / "out" / "run.json").read_text())["launcher"] == "in_house"
    trials = [json.loads(line) for line in (folder / "out" / "trials.jsonl").read_text().splitlines()]
    assert {trial["status"] for trial in trials} == {"ok"}
    assert len((folder / "launches").read_text().splitlines()) == len(trials)


def test_the_other_parbench_of_a_comparison_is_no_launcher_to_choose(site: Path) -> None:
    ended = run(site, "--launcher", "remote")
    assert ended.returncode == 2
    assert "there is no 'remote'; choose from in_house, local, slurm, torchrun" in ended.stderr
