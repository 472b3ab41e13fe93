"""Every mistake that a strategy can make by accident is caught: from the first step or later, exact or inexact."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine

MISTAKES = ["missing", "late", "halved", "doubled", "scaled", "reused", "half", "skipped", "idle"]
STARTS = [0, 7]
CLAIMS = ["exact", "inexact"]
SCENARIO = """
name: cheats
workloads:
  lstm:
    model: {{kind: lstm, layers: 2, d_model: 32}}
    data: {{source: text, path: text.txt}}
    seq_len: 16
    global_batch: 32
    models: 1
    optimizer: {{name: adam, lr: 3e-3}}
strategies: {strategies}
devices: {{kind: cpu, counts: [1, 2], oversubscribe: true}}
measure:
  {{rounds: 1, warmup: 20, window_s: 0.05, validation_batches: 1, deadline_s: 600, verify_steps: 40, account: false}}
"""


@dataclass
class Table:
    """The finished campaign: the rows by label and devices."""

    rows: dict[tuple[str, int], dict[str, Any]]

    def row(self, mistake: str, start: int, claims: str, devices: int) -> dict[str, Any]:
        return self.rows[f"mistaken(mistake={mistake}, start={start}, claims={claims})", devices]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, foreign_package: Path) -> Table:
    parbench = CommandLine(tmp_path_factory.mktemp("cheats"), packages=foreign_package)
    mistaken = {"mistake": MISTAKES, "start": STARTS, "claims": CLAIMS}
    strategies = ["single", {"mistaken": {"claims": CLAIMS}}, {"mistaken": mistaken}]
    (parbench.folder / "cheats.yaml").write_text(SCENARIO.format(strategies=json.dumps(strategies)))
    words = "the quick brown fox jumps over the lazy dog while seven wizards boil a quart of zinc "
    (parbench.folder / "text.txt").write_text("".join(f"{number} {words[number % 40 :]}" for number in range(2000)))
    ended = parbench("run", "cheats.yaml")
    assert ended.returncode == 3, ended.stderr
    rows = json.loads(parbench("table", "--format", "json").stdout)
    return Table({(row["label"], row["devices"]): row for row in rows})


@pytest.mark.parametrize(("claims", "devices"), list(product(CLAIMS, [1, 2])))
def test_who_makes_no_mistake_passes(table: Table, claims: str, devices: int) -> None:
    row = table.rows[f"mistaken(claims={claims})", devices]
    assert row["parity"] == {"exact": "ok", "inexact": "inexact"}[claims], row["reason"]
    assert row["speedup"] is not None


@pytest.mark.parametrize(
    ("mistake", "start", "claims", "devices"),
    # On one device there is nothing to synchronise.
    [each for each in product(MISTAKES, STARTS, CLAIMS, [1, 2]) if each[0] != "missing" or each[3] > 1],
)
def test_a_mistake_is_caught(table: Table, mistake: str, start: int, claims: str, devices: int) -> None:
    row = table.row(mistake, start, claims, devices)
    assert row["parity"] == "failed", (row["reason"], row["parity_deviation"], row["parity_power"])
    assert row["speedup"] is None
