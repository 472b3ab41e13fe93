"""Runs of parbench as a user starts them, and what they recorded."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu.ledger import Bench, Claim

SCENARIOS = Path(__file__).parent / "scenarios"
REPOSITORY = Path(__file__).parents[2]
GOOD = ("reference", "ok", "inexact")
ENDING_S = 20.0
"""What an interrupted run needs to end its ranks and write its table."""


@dataclass(frozen=True)
class Campaign:
    """A finished run: its folder, the rows of its table, and its trials."""

    folder: Path
    rows: list[dict[str, Any]]
    trials: list[dict[str, Any]]

    def row(self, **values: Any) -> dict[str, Any]:
        """The first row with these values. Raises `LookupError` where there is none."""
        for row in self.rows:
            if all(row[name] == value for name, value in values.items()):
                return row
        raise LookupError(f"no row has {values}")

    def parity(self) -> Claim:
        """That every cell which was not skipped ended well and computed what its reference computes."""
        ran = [row for row in self.rows if row["status"] != "skipped"]
        bad = {row["cell"]: row["reason"] for row in ran if row["status"] != "ok" or row["parity"] not in GOOD}
        return Claim("every cell ends well and computes what the reference computes", bool(ran) and not bad, bad)


def run(bench: Bench, scenario: Path, *overrides: str, within_s: float | None = None) -> Campaign:
    """Runs a scenario into a folder of its own. What a run that takes too long has measured by then still counts."""
    folder = bench.out / scenario.stem
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "parbench", "run", str(scenario), "--out", str(folder), *settings]
    with (bench.out / f"{scenario.stem}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(min(within_s or bench.left_s, bench.left_s))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(ENDING_S)
    table = [sys.executable, "-m", "parbench", "table", str(folder), "--format", "json"]
    shown = subprocess.run(table, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    lines = (folder / "trials.jsonl").read_text().splitlines()
    return Campaign(folder, json.loads(shown.stdout), [json.loads(line) for line in lines])
