"""MPS without a GPU: a stand-in for its daemon, and trials whose ranks tell what they see of it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from parbench.campaign.tasks import Task, assign
from parbench.data.corpus import prepare
from parbench.launch.trial_folder import prepare_folder
from parbench.plan.reading import read_plan
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine
from parbench.system.mps import CONTROL, LOGS, PIPES
from tests.conftest import OFFSPRING

PROGRAM = Path(__file__).with_name("mps_control.py")
SCENARIO = """
workloads:
  told:
    model: {kind: custom, build: told.py:build}
    data: {source: synthetic, vocab_size: 16, tokens: 2000}
    seq_len: 4
    global_batch: 8
    models: 2
strategies:
  - task_pool: {tasks_per_device: 2}
devices: {kind: cpu, counts: [1]}
measure: {rounds: 1, warmup: 5, window_s: 0.001, deadline_s: 600}
"""
MODEL = """
import json, os, time
from pathlib import Path
from torch import nn


def build(vocab_size, seq_len, hang=False):
    if "RANK" in os.environ:
        seen = {name: os.environ.get(name) for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")}
        Path(__file__).with_name(f"rank{os.environ['RANK']}.seen").write_text(json.dumps(seen))
        if hang:
            time.sleep(3600)
    return nn.Sequential(nn.Embedding(vocab_size, 8), nn.Linear(8, vocab_size))
"""


def install_mps(folder: Path, patch: pytest.MonkeyPatch, how: str = "") -> None:
    """Puts the stand-in first on the PATH, where no daemon runs."""
    folder.mkdir()
    program = folder / CONTROL
    program.write_text(f"#!{sys.executable} -IS\n{PROGRAM.read_text()}")
    program.chmod(0o755)
    patch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    patch.setenv("OFFSPRING", OFFSPRING)
    patch.setenv("FAKE_MPS", how)
    for name in (PIPES, LOGS):
        patch.delenv(name, raising=False)


def prepare_trial(folder: Path, *, mps: bool = True, hang: bool = False) -> Path:
    """The folder of a trial of two ranks that share a device, and write what they see of MPS beside it."""
    model = MODEL.replace("hang=False", f"hang={hang}")
    (folder / "told.py").write_text(model)
    (folder / "told.yaml").write_text(SCENARIO)
    plan = read_plan(folder / "told.yaml", Machine(cores=allowed_cores()))
    (cell,) = plan.runnable
    corpus = prepare(cell.workload.data, seq_len=cell.workload.seq_len, seed=0, folder=folder)
    assignment = assign(plan, Task(purpose="measure", cell=cell, key=cell.record.key, models=2), corpus)
    trial = folder / "trial"
    prepare_folder(trial, assignment.model_copy(update={"mps": mps}))
    return trial


def seen_by_ranks(trial: Path) -> list[dict[str, str | None]]:
    """What each rank that has built its model has seen, in their order."""
    return [json.loads(file.read_text()) for file in sorted(trial.parent.glob("rank*.seen")) if file.read_text()]


def known_of_daemon(trial: Path) -> dict[str, Any]:
    """The process ids of daemon and server, and the folder of their pipes, as the daemon has logged them."""
    known: dict[str, Any] = json.loads((trial / "mps" / "control.log").read_text())
    return known
