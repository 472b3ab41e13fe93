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
    """A run as it was recorded: its folder, the rows of its table by the cells' ids, and its trials."""

    folder: Path
    rows: dict[str, dict[str, Any]]
    trials: list[dict[str, Any]]

    def parity(self, *, interrupted: bool = False) -> Claim:
        """That every cell which was not skipped ended well and computed what its reference computes.

        Of a run that was interrupted, not every cell's reference is known.
        """
        good = (*GOOD, "undecided", None) if interrupted else GOOD
        ran = {cell: row for cell, row in self.rows.items() if row["status"] != "skipped"}
        bad = {cell: row["reason"] for cell, row in ran.items() if row["status"] != "ok" or row["parity"] not in good}
        return Claim("every cell ends well and computes what the reference computes", bool(ran) and not bad, bad)

    def figures(self, name: str) -> dict[str, float]:
        """A figure of the cells that ended well and have it."""
        return {cell: row[name] for cell, row in self.rows.items() if row["status"] == "ok" and row[name] is not None}


def run(bench: Bench, scenario: Path, *overrides: str) -> Campaign:
    """Runs a scenario into a folder of its own. What a run that takes too long has measured by then still counts."""
    folder, log = bench.out / scenario.stem, bench.out / f"{scenario.stem}.log"
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "parbench", "run", str(scenario), "--out", str(folder), *settings]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
        try:
            process.wait(bench.left_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(ENDING_S)
    if not (folder / "run.json").exists():
        raise RuntimeError(f"{scenario.name} did not start: {log.read_text().strip()[-500:]}")
    return read(folder)


def run_program(bench: Bench, module: str, scenario: Path, *options: str) -> tuple[dict[str, Any], str]:
    """What a program of this folder writes about a scenario and, where it fails, the end of what it says."""
    out = bench.out / f"{module}.json"
    command = [sys.executable, "-m", f"tests.gpu.{module}", str(scenario), str(out), *options]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=bench.left_s)
    results = json.loads(out.read_text()) if out.exists() else {}
    return results, ended.stderr[-2000:] if ended.returncode else ""


def read(folder: Path) -> Campaign:
    """The campaign in a run's folder."""
    command = [sys.executable, "-m", "parbench", "table", str(folder), "--format", "json"]
    table = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    rows = {f"{row['workload']}/{row['label']}/{row['devices']}": row for row in json.loads(table.stdout)}
    lines = (folder / "trials.jsonl").read_text().splitlines()
    return Campaign(folder, rows, [json.loads(line) for line in lines])
