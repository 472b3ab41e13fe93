"""One scenario under the launchers local, torchrun and slurm, on two cores of this machine: is it one table?

`python -m tests.launch.same_table [ROUNDS]` needs root and Linux. The launchers take turns, a round each, in random
order; each goes on with its own run. It prints tokens/s with 95 % intervals, and how each launcher compares with
`local` in the same rounds.
"""

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from parbench.figures.speed import tokens_per_s
from parbench.figures.statistics import summarise
from parbench.records.cell import CellRecord
from parbench.results.store import Run, read_run
from parbench.results.tables import cells_table
from tests.launch.cluster import Cluster, require_slurm
from tests.launch.hosts import PARBENCH

ROUNDS = 5
LAUNCHERS = ("local", "torchrun", "slurm")
SCENARIO = """
name: same_table
workloads:
  lstm:
    model: {kind: lstm, layers: 4, d_model: 128}
    data: {source: python-stdlib}
    seq_len: 64
    global_batch: 32
strategies: [single, ddp, model_parallel: {schedule: gpipe, micro_batches: 4}, task_pool]
devices: {kind: cpu, counts: [1, 2]}
exclude: [{strategy: [ddp, model_parallel, task_pool], devices: 1}]
measure: {seed: 0}
"""


def main(rounds: int) -> None:
    """Measures, and prints."""
    require_slurm()
    with tempfile.TemporaryDirectory(prefix="same-") as scratch:
        folder = Path(scratch)
        for name in ("slurm", "hidden"):
            (folder / name).mkdir()
        (folder / "same_table.yaml").write_text(SCENARIO)
        order = random.Random(0)  # noqa: S311 - a shuffle, not a secret
        with Cluster(folder / "slurm", folder / "hidden") as cluster:
            for number in range(1, rounds + 1):
                for launcher in order.sample(LAUNCHERS, len(LAUNCHERS)):
                    measure(cluster, folder, launcher, number)
        show({launcher: read_run(folder / f"on-{launcher}") for launcher in LAUNCHERS})


def measure(cluster: Cluster, folder: Path, launcher: str, rounds: int) -> None:
    """Goes on with a launcher's run until it has so many rounds. What goes wrong is told, and is a row."""
    out = f"on-{launcher}"
    resume = ["--resume"] if (folder / out).exists() else []
    rounds_of = ["--rounds", str(rounds), "--out", out, *resume]
    command = [*PARBENCH, "run", "same_table.yaml", "--launcher", launcher, *rounds_of]
    allocated = cluster.salloc("--nodes=1 --exclusive", *command) if launcher == "slurm" else command
    ended = subprocess.run(allocated, cwd=folder, env=cluster.environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        print(ended.stderr, file=sys.stderr)


def show(runs: Mapping[str, Run]) -> None:
    """Status, parity and tokens/s of each cell under each launcher, and the ratio to `local` within rounds."""
    rows = {launcher: cells_table(run).to_dict("records") for launcher, run in runs.items()}
    for number, cell in enumerate(runs["local"].record.cells):
        print(cell.id)
        base = speeds(runs["local"], cell)
        for launcher, run in runs.items():
            mine, row = speeds(run, cell), rows[launcher][number]
            ratios = [mine[each] / base[each] for each in mine if each in base]
            verdict = f"{row['status']}, {row['parity']}"
            print(
                f"  {launcher:9} {verdict:14} {told(mine.values(), ',.0f'):>27} tokens/s  {told(ratios, '.3f')} × local"
            )


def speeds(run: Run, cell: CellRecord) -> dict[int, float]:
    """Tokens/s by round, of trials that went well."""
    mine = [trial for trial in run.trials if (trial.key, trial.purpose, trial.status) == (cell.key, "measure", "ok")]
    return {trial.round: tokens_per_s(trial, cell) for trial in mine}


def told(values: Iterable[float], form: str) -> str:
    """The mean of several launches with its interval."""
    found = list(values)
    if not found:
        return "nothing"
    mean = summarise(found)
    interval = "" if mean.low is None or mean.high is None else f" [{mean.low:{form}}, {mean.high:{form}}]"
    return f"{mean.mean:{form}}{interval}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
