"""What a trial costs beyond the steps that it measures, as a step of SLURM and on this machine, over its floor.

The floor is what no launcher gets below that starts fresh processes with `srun`: a step of tasks that import torch.
"""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.results.figures import measured_s
from parbench.results.store import read_run
from tests.launch.cluster import NODES, Cluster, require_slurm

ROUNDS = 5
SIZES = {1: 1, 2: 1, 4: 2}
SCENARIO = f"""
name: cost
workloads:
  lstm:
    model: {{kind: lstm, layers: 2, d_model: 32}}
    data: {{source: synthetic, vocab_size: 64, tokens: 20000}}
    seq_len: 16
    global_batch: 16
strategies: [ddp]
devices: {{kind: cpu, counts: {list(SIZES)}, oversubscribe: true}}
measure: {{rounds: {ROUNDS}, warmup: 5, window_s: 0.1, validation_batches: 1}}
"""
# The first optimizer imports torch._dynamo, whoever asks.
IMPORTS = [sys.executable, "-P", "-c", "import torch, torch._dynamo"]


def test_trials_under_slurm(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    try:
        require_slurm()
    except LookupError as reason:
        pytest.skip(f"no SLURM here: {reason}")
    (tmp_path / "cost.yaml").write_text(SCENARIO)
    for name in ("slurm", "hidden"):
        (tmp_path / name).mkdir()

    def compare() -> None:
        with Cluster(tmp_path / "slurm", tmp_path / "hidden") as cluster:
            extra = {launcher: extra_s(cluster, tmp_path, launcher) for launcher in ("local", "slurm")}
            for size, nodes in SIZES.items():
                empty, imports = (step_s(cluster, nodes, size, command) for command in (["true"], IMPORTS))
                print(
                    f"\nworld of {size} on {nodes} of {len(NODES)} nodes: local {extra['local'][size]:.2f} s, "
                    f"slurm {extra['slurm'][size]:.2f} s; srun true {empty:.2f} s, "
                    f"srun with imports of torch {imports:.2f} s: {extra['slurm'][size] / imports:.2f} of this floor"
                )

    benchmark.pedantic(compare, rounds=1)


def extra_s(cluster: Cluster, folder: Path, launcher: str) -> dict[int, float]:
    """The median over trials of what each world size costs."""
    command = [sys.executable, "-m", "parbench", "run", "cost.yaml", "--launcher", launcher, "--out", launcher]
    allocated = cluster.salloc("--nodes=2 --exclusive", *command)
    subprocess.run(allocated, cwd=folder, env=cluster.environment, check=True, capture_output=True)
    trials = [trial for trial in read_run(folder / launcher).trials if trial.purpose == "measure"]
    return {
        size: statistics.median(trial.wall_s - measured_s(trial) for trial in trials if len(trial.ranks) == size)
        for size in SIZES
    }


def step_s(cluster: Cluster, nodes: int, tasks: int, command: list[str]) -> float:
    """The median time of a step inside an allocation, from the start of srun to its end."""
    srun = ["srun", f"--nodes={nodes}", f"--ntasks={tasks}", "--overlap", "--cpu-bind=none", *command]
    timer = (
        "import subprocess, sys, time\n"
        "for _ in range(int(sys.argv[1])):\n"
        "    started = time.monotonic()\n"
        "    subprocess.run(sys.argv[2:], check=True, stderr=subprocess.DEVNULL)\n"
        "    print(time.monotonic() - started)\n"
    )
    timed = cluster.run(*cluster.salloc("--nodes=2 --exclusive", sys.executable, "-c", timer, str(ROUNDS), *srun))
    return statistics.median(map(float, timed.split()))
