"""Measures the stored runs again, which the pages' tables and charts are made from.

`python -m tests.docs.stored [SCENARIO…]` (`make stored`) measures each scenario into a folder of results/ and keeps
the run's record and trials, without logs, under results/stored. A run that was interrupted goes on. The runs over a
slow network have a module of their own, `tests.launch.slow_network`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import REPOSITORY

SCENARIOS = (
    "lstm_scaling",
    "transformer_scaling",
    "strategies_full",
    "memory",
    "long_context",
    "inference_scaling",
    "lstm_full",
    "parity_power",
)
SUFFIX = "cpu-2-cores"
CELL_FAILED = 3


def measure(scenario: str) -> Path:
    """One run of the scenario; the folder that it is stored in. Its progress and table go to this terminal."""
    folder = Path("results") / f"{scenario}-{SUFFIX}"
    command = ["parbench", "run", f"scenarios/{scenario}.yaml", "--out", str(folder)]
    resume = ["--resume"] if (REPOSITORY / folder).exists() else []
    done = subprocess.run([sys.executable, "-m", *command, *resume], cwd=REPOSITORY, check=False)
    if done.returncode not in (0, CELL_FAILED):
        sys.exit(done.returncode)
    stored = REPOSITORY / "results/stored" / folder.name
    stored.mkdir(parents=True, exist_ok=True)
    for file in ("run.json", "trials.jsonl"):
        shutil.copy(REPOSITORY / folder / file, stored / file)
    return stored


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SCENARIOS:
        print(measure(wanted))
