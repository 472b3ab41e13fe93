"""A new strategy, and a new model family, is one new file in its folder: nothing else has to know its name."""

import json
import shutil
from pathlib import Path

import pytest

import parbench
from tests.conftest import CommandLine

STRATEGY = '''
"""Accumulation: one device takes the batch in two halves."""

from typing import TYPE_CHECKING

from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Layout, Strategy, require_equal_parts
from parbench.system.devices import Devices

if TYPE_CHECKING:
    from torch import Tensor

    from parbench.data.batches import Batch


class Halves(Strategy[Options]):
    """The gradients of both halves of the batch, added up before the step."""

    name = "halves"
    phases = ("train",)
    scales = False

    @classmethod
    def layout(cls, options: Options, workload: WorkloadSpec, devices: Devices) -> Layout:
        require_equal_parts(workload, 2, "halves")
        return Layout(processes=1)

    def step(self, batch: "Batch") -> "Tensor | None":
        total = 0.0
        for half in batch.parts(2):
            loss = self.loss(half) / 2
            loss.backward()
            total = total + loss.detach()
        self.updates.apply()
        return total
'''
FAMILY = '''
"""A bag of tokens: every block is one linear layer."""

from typing import TYPE_CHECKING, Literal

from parbench.models.base import Family

if TYPE_CHECKING:
    from torch import nn


class Bag(Family):
    """`layers` linear blocks of width `d_model`."""

    kind: Literal["bag"] = "bag"
    layers: int = 2
    d_model: int = 8

    @property
    def n_blocks(self) -> int:
        return self.layers

    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":
        from torch import nn

        return nn.Embedding(vocab_size, self.d_model)

    def block(self, seq_len: int) -> "nn.Module":
        from torch import nn

        return nn.Linear(self.d_model, self.d_model)

    def head(self, vocab_size: int) -> "nn.Module":
        from torch import nn

        return nn.Linear(self.d_model, vocab_size)
'''
SCENARIO = """
name: tiny
workloads:
  words:
    model: {kind: bag}
    data: {source: synthetic, vocab_size: 16, tokens: 1000}
    seq_len: 4
    global_batch: 8
strategies: [single, halves]
devices: {kind: cpu, counts: [1]}
measure: {rounds: 1, warmup: 5, window_s: 0.01, validation_batches: 1, deadline_s: 600}
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """parbench from a copy of the package, with one file more for the strategy and one for the family."""
    folder = tmp_path_factory.mktemp("one_file")
    source = Path(parbench.__file__).parent
    package = folder / "packages" / "parbench"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "strategies" / "halves.py").write_text(STRATEGY)
    (package / "models" / "bag.py").write_text(FAMILY)
    (folder / "tiny.yaml").write_text(SCENARIO)
    return CommandLine(folder, packages=folder / "packages")


@pytest.mark.parametrize(("what", "name"), [("strategies", "halves"), ("workloads", "bag")])
def test_it_is_listed_with_what_its_docstring_says(extended: CommandLine, what: str, name: str) -> None:
    ended = extended("list", what)
    assert ended.returncode == 0, ended.stderr
    assert name in ended.stdout
    assert {"halves": "both halves of the batch", "bag": "linear blocks"}[name] in " ".join(ended.stdout.split())


def test_it_is_planned(extended: CommandLine) -> None:
    ended = extended("plan", "tiny.yaml")
    assert ended.returncode == 0, ended.stderr
    assert "2 cells to measure" in ended.stdout
    assert "halves" in ended.stdout


def test_it_is_measured_and_compared_with_the_reference(extended: CommandLine) -> None:
    ended = extended("run", "tiny.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(extended("table", "out", "--format", "json").stdout)
    assert {row["label"]: (row["status"], row["parity"]) for row in rows} == {
        "single": ("ok", "reference"),
        "halves": ("ok", "ok"),
    }
