"""`python -m tests.gpu.acceptance [--budget SECONDS] [--out FOLDER]`: is parbench right and fast on this GPU?

A ledger of steps that fits into the budget. It ends with `acceptance.json`, a report, and a stored run for each
campaign. Exit code 0: all that was claimed holds; 1: something does not; 2: there is no GPU.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.gpu import faults, machine, memory, models, speed
from tests.gpu.campaigns import REPOSITORY
from tests.gpu.ledger import Bench, Ledger, Step

STEPS = (
    Step("the machine", 20, machine.examine),
    Step("every strategy computes the same, in every precision", 60, models.compare_all),
    Step("GPT-2 124M: eager, compiled, CUDA graphs, its loss in chunks", 80, speed.train_gpt2),
    Step("GPT-2 124M: beside a step by hand", 30, speed.compare_with_script),
    Step("memory, beside its prediction", 40, memory.compare_memory),
    Step("eight small models on one GPU, by each way", 90, models.train_eight),
    Step("generation", 30, models.generate),
    Step("out of memory, and a trial that takes too long", 80, faults.run_out_of_memory),
    Step("two ranks on one GPU", 20, models.share_gpus),
    Step("energy", 10, machine.compare_energy),
    Step("CPU devices beyond two", 40, speed.scale_on_cpu),
)
REPORT_S = 20.0
LARGEST_FILE = 16 * 2**20


def main(arguments: list[str] | None = None) -> int:
    """Takes the steps, renders the report, keeps the runs; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.acceptance", description=__doc__)
    parser.add_argument("--budget", type=float, default=520.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=Path(f"results/gpu-acceptance-{time.strftime('%Y%m%d-%H%M%S')}"))
    options = parser.parse_args(arguments)

    from parbench.system.devices import detect

    if not detect().gpus:
        print("There is no GPU that the installed torch can use: run this on a machine with one.", file=sys.stderr)
        return 2
    out = options.out.resolve()
    if out.exists() and any(out.iterdir()):
        print(f"{out} holds an acceptance already: give another folder with --out.", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    ends_at = time.monotonic() + options.budget
    holds = Ledger(Bench(out, ends_at - REPORT_S)).take(STEPS)
    keep(out)
    print(f"{'All that was claimed holds.' if holds else 'Not all that was claimed holds.'} {out / 'acceptance.json'}")
    return 0 if holds else 1


def keep(out: Path) -> None:
    """Renders the report of all campaigns, and keeps each one's record and trials under `stored`."""
    runs = sorted(file.parent for file in out.glob("*/run.json"))
    if runs:
        command = [sys.executable, "-m", "parbench", "report", *map(str, runs), "--out", str(out / "report")]
        subprocess.run(command, cwd=REPOSITORY, check=False)
    for run in runs:
        stored = out / "stored" / run.name
        stored.mkdir(parents=True, exist_ok=True)
        for file in ("run.json", "trials.jsonl"):
            if (run / file).exists() and (run / file).stat().st_size <= LARGEST_FILE:
                shutil.copy(run / file, stored / file)


if __name__ == "__main__":
    sys.exit(main())
