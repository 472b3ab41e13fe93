"""A pipeline whose stages only sleep: its bubble is the schedule's, whatever the machine does besides."""

import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine

SCENARIO = """
workloads:
  w:
    model: {kind: paced_bag, layers: 2, pause_s: 0.05}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
strategies:
  - model_parallel: {schedule: gpipe, micro_batches: [2, 8]}
  - model_parallel: {schedule: naive}
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, validation_batches: 1, deadline_s: 600}
"""


@pytest.fixture(scope="module")
def bubbles(tmp_path_factory: pytest.TempPathFactory, foreign_package: Path) -> dict[str, float]:
    """The bubble's share of a step in each cell, the mean over its two ranks."""
    parbench = CommandLine(tmp_path_factory.mktemp("bubbles"), packages=foreign_package)
    (parbench.folder / "s.yaml").write_text(SCENARIO)
    ended = parbench("run", "s.yaml", "--out", "out")
    # Nothing is learned that could be compared in so few steps of so small a model; only times matter here.
    assert ended.returncode in (0, 3), ended.stderr
    ended = parbench("table", "out", "--breakdown", "--format", "json")
    return {row["label"]: row["pipeline"] for row in json.loads(ended.stdout)}


@pytest.mark.parametrize("micro_batches", [1, 2, 8])
def test_the_bubble_is_that_of_the_schedule(bubbles, micro_batches) -> None:
    """(p-1)/(m+p-1) for p stages and m micro-batches (Narayanan et al. 2021)."""
    name = "schedule=naive" if micro_batches == 1 else f"micro_batches={micro_batches}"
    bubble = next(share for label, share in bubbles.items() if name in label)
    assert bubble == pytest.approx(1 / (micro_batches + 1), abs=0.06)
