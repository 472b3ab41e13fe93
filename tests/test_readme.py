"""What the README tells people to paste works when it is pasted."""

import json
import re
from pathlib import Path

import pytest

from parbench.export.cells import columns_of
from parbench.results.store import read_run
from parbench.results.tables import cells_table
from tests.conftest import CommandLine

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
STORED = REPOSITORY / "results/stored"
SCENARIO = """
workloads:
  w:
    model: {kind: lstm, layers: 2, d_model: 16}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
    optimizer: {name: adam, lr: 1e-2}
strategies: [single, averaging]
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.05, validation_batches: 1, deadline_s: 600}
"""


def block(after: str, language: str) -> str:
    """The first code block in `language` after a heading."""
    found = re.search(rf"^## {after}$.*?^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found, f"README has no {language} under {after}"
    return found[1]


def test_the_strategy_of_the_readme_runs_from_a_package_of_its_own(tmp_path: Path) -> None:
    code = block("Add a strategy", "python")
    assert len(code.splitlines()) < 40
    site = tmp_path / "site"
    info = site / "my_package-1.dist-info"
    info.mkdir(parents=True)
    (site / "my_package.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    entry_points = block("Add a strategy", "toml").replace(
        '[project.entry-points."parbench.strategies"]', "[parbench.strategies]"
    )
    (info / "entry_points.txt").write_text(entry_points.replace('"my_package:Averaging"', "my_package:Averaging"))
    parbench = CommandLine(tmp_path, packages=site)
    (tmp_path / "s.yaml").write_text(SCENARIO)

    ended = parbench("run", "s.yaml", "--out", "out")

    assert ended.returncode == 0, ended.stderr
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    assert [(row["strategy"], row["parity"]) for row in rows] == [("single", "reference"), ("averaging", "ok")]
    assert "averaging: Gradients averaged by hand" in parbench("list", "strategies").stdout


def test_the_exclude_rules_of_the_readme_are_rules(tmp_path: Path) -> None:
    rules = re.search(r"^exclude:\n(?:  - .*\n)+", README, re.MULTILINE)
    assert rules
    (tmp_path / "s.yaml").write_text(
        SCENARIO.replace("strategies: [single, averaging]", "strategies: [single, ddp]") + rules[0]
    )
    ended = CommandLine(tmp_path)("plan", "s.yaml")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("run", ["lstm_scaling-cpu-2-cores", "strategies_full-cpu-2-cores"])
def test_the_figures_of_the_readme_are_those_of_the_stored_run(run: str) -> None:
    tables = README[README.index("## A real table") : README.index("## What a slow network does")]
    titles, _, *lines = (
        [cell.strip("` ").replace("\\", "") for cell in line.strip("|").split(" | ")]
        for line in tables.split(f"(results/stored/{run})")[1].split("\n\n")[1].splitlines()
    )
    stored = cells_table(read_run(STORED / run))
    columns = {title: column for title, column in columns_of(stored).items() if title in titles}
    known = [{title: column(row) for title, column in columns.items()} for row in stored.to_dict("records")]
    assert {"strategy", "speedup", "memory/rank"} <= set(columns)
    assert lines
    for line in lines:
        shown = dict(zip(titles, line, strict=True))
        assert {title: shown[title] for title in columns} in known
