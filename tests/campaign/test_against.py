"""A commit against the working tree, where what differs is a model of the user's own."""

import contextlib
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from parbench.campaign import against
from parbench.campaign.arms import Arms, arms_against
from parbench.cli.progress import progress_on
from parbench.launch.remote.protocol import Greeting
from parbench.plan.reading import read_plan
from parbench.system.devices import detect
from parbench.system.environment import capture
from tests.conftest import CommandLine
from tests.support.fake_launcher import FakeLauncher

SCENARIO = """
name: brought
workloads:
  mine:
    model: {kind: custom, build: "BUILD"}
    data: {source: synthetic, vocab_size: 16, tokens: 1000}
    seq_len: 4
    global_batch: 8
    optimizer: {name: adam, lr: 1e-2}
strategies: [STRATEGY]
devices: {kind: cpu, counts: [DEVICES], oversubscribe: true}
measure: {rounds: 3, warmup: 5, window_s: 0.02, validation_batches: 1, deadline_s: 600, account: false}
check: {gate: [step_time_min_s, parameters], margin: 3.0, margin_few_sessions: 3.0, min_effect: 10.0}
"""
MODEL = """
import time
from torch import nn

class Block(nn.Linear):
    def forward(self, hidden):
        time.sleep(PAUSE)
        return super().forward(hidden)

class Model(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.embed, self.head = nn.Embedding(vocab_size, 8), nn.Linear(8, vocab_size)
        self.blocks = nn.ModuleList(Block(8, 8) for _ in range(BLOCKS))

    def forward(self, tokens):
        hidden = self.embed(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)

def build(vocab_size, seq_len):
    return Model(vocab_size)
"""


def write(folder: Path, *, pause: float, blocks: int = 2) -> None:
    """The user's model: a file beside the scenario, and the same in a package."""
    text = MODEL.replace("PAUSE", str(pause)).replace("BLOCKS", str(blocks))
    for path in (folder / "bench" / "models.py", folder / "src" / "brought" / "models.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def scenario_of(build: str, strategy: str = "single", devices: int = 1) -> str:
    return SCENARIO.replace("BUILD", build).replace("STRATEGY", strategy).replace("DEVICES", str(devices))


def repository(folder: Path, text: str) -> Path:
    """A repository whose only commit has a fast model and a scenario of it.

    What it waits for is more than what a noisy machine adds.
    """
    write(folder, pause=0.005)
    scenario = folder / "bench" / "brought.yaml"
    scenario.write_text(text)
    (folder / "src" / "brought" / "__init__.py").write_text("")
    author = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "fast"]):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)
    return scenario


@pytest.mark.parametrize(
    ("build", "strategy", "devices"), [("models.py:build", "single", 1), ("brought.models:build", "model_parallel", 2)]
)
def test_a_model_that_has_become_slower_since_the_commit_regresses(
    build: str, strategy: str, devices: int, tmp_path: Path
) -> None:
    scenario = repository(tmp_path, scenario_of(build, strategy, devices))
    write(tmp_path, pause=0.05, blocks=3)
    parbench = CommandLine(tmp_path, packages=tmp_path / "src")
    ended = parbench("check", scenario, "--against", "git:HEAD", "--format", "json")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    found = {(each["cell"], each["metric"]): each["verdict"] for each in json.loads(ended.stdout)["findings"]}
    assert found[f"mine/{strategy}/{devices}", "step_time_min_s"] == "regressed"
    assert found[f"mine/{strategy}/{devices}", "parameters"] == "regressed", "the commit's model has a block less"


def test_a_model_that_the_commit_does_not_have_is_a_sentence(tmp_path: Path) -> None:
    scenario = repository(tmp_path, scenario_of("models.py:build"))
    (tmp_path / "bench" / "new.py").write_text(MODEL.replace("PAUSE", "0").replace("BLOCKS", "1"))
    scenario.write_text(scenario_of("new.py:build"))
    ended = CommandLine(tmp_path)("check", scenario, "--against", "git:HEAD")
    assert ended.returncode == 2
    assert "cannot build workload mine: " in ended.stderr
    assert "new.py cannot be read" in ended.stderr


def test_an_arm_is_not_asked_for_a_purpose_that_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purposes = {"candidate": ("reference", "measure", "proof"), "base": ("reference", "measure")}

    @contextlib.contextmanager
    def servers(arms: Arms) -> Iterator[tuple[dict[str, FakeLauncher], dict[str, Greeting]]]:
        yield (
            {arm.name: FakeLauncher() for arm in arms},
            {arm.name: Greeting(environment=capture(), modules=(), purposes=purposes[arm.name]) for arm in arms},
        )

    monkeypatch.setattr(against, "servers", servers)
    scenario = tmp_path / "tiny.yaml"
    scenario.write_text(scenario_of("").replace('{kind: custom, build: ""}', "{kind: lstm}"))
    with arms_against("itself") as arms:
        progress = progress_on(Console(file=io.StringIO()))
        runs = against.run_arms(read_plan(scenario, detect()), arms, tmp_path / "run", progress, command=[])[:2]
    found = dict(zip(("candidate", "base"), ({trial.purpose for trial in run.trials} for run in runs), strict=True))
    assert found == {name: set(each) for name, each in purposes.items()}
