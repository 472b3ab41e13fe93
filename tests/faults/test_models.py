"""Models that people bring and that go wrong while the scenario is read: no cell is started, and parbench stays."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import CommandLine

BROUGHT = Path(__file__).parent.parent / "scenarios" / "brought.py"
SCENARIO = """\
workloads:
  mine:
    model:
      kind: custom
      build: brought.py:FUNCTION
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 16
strategies: [single, ddp]
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, deadline_s: 60}
"""


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("lazy", "has no shape yet"),
        ("on_meta", "is on device meta"),
        ("cut", "for token ids of shape (16, 8)"),
        ("gone", "the process that builds it ended by itself with exit code 0"),
        ("crashing", "the process that builds it was killed by SIGSEGV"),
    ],
)
def test_row_38_a_model_that_cannot_be_measured(parbench: CommandLine, function: str, sentence: str) -> None:
    shutil.copy(BROUGHT, parbench.folder)
    (parbench.folder / "mine.yaml").write_text(SCENARIO.replace("FUNCTION", function))
    ended = parbench("run", "mine.yaml", "--out", "out")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("mine.yaml:5: workloads.mine.model.build: ")
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (parbench.folder / "out").exists()
