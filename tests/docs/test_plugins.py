"""The strategy and the model family of the pages run when they are pasted into a package."""

import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.docs.blocks import REPOSITORY, Block, blocks, files_of

PAGE = REPOSITORY / "docs/plugins.md"
RUN_HERE = ("my_package.py", "tiny.py")
"""Files that this test runs, and that the commands of their page do (`parbench plan tiny.yaml`)."""

SCENARIO = """
workloads:
  lstm: {model: {kind: lstm, layers: 2, d_model: 16}, data: &data {source: synthetic, vocab_size: 64, tokens: 20000},
    seq_len: 8, global_batch: 8, optimizer: &sgd {name: sgd, lr: 0.1}}
  bag: {model: {kind: bag_of_tokens}, data: *data, seq_len: 8, global_batch: 8, optimizer: *sgd}
strategies: [single, averaging]
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.05, validation_batches: 1, deadline_s: 600}
"""


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_of_the_pages_is_python_that_some_test_runs(block: Block) -> None:
    compile(block.text, str(block), "exec")
    assert block.mark == "not run" or (block.mark, block.title in RUN_HERE) == ("run", True)


def test_the_package_of_the_pages_runs(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "my_package-1.dist-info"
    info.mkdir(parents=True)
    code = files_of(PAGE)["my_package.py"]
    (site / "my_package.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (entry_points,) = (block.text for block in blocks("toml"))
    (info / "entry_points.txt").write_text(
        entry_points.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
    )
    parbench = CommandLine(tmp_path, packages=site)
    (tmp_path / "s.yaml").write_text(SCENARIO)

    ended = parbench("run", "s.yaml", "--out", "out")

    assert ended.returncode == 0, ended.stderr
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    assert [(row["workload"], row["strategy"], row["parity"]) for row in rows] == [
        ("lstm", "single", "reference"),
        ("lstm", "averaging", "ok"),
        ("bag", "single", "reference"),
        ("bag", "averaging", "ok"),
    ]
    assert "averaging: Gradients averaged by hand" in parbench("list", "strategies").stdout
    assert "bag_of_tokens: Each position" in parbench("list", "workloads").stdout
    for block in blocks("python"):
        if block.title == "my_package.py":
            assert len(block.text.splitlines()) < 40
