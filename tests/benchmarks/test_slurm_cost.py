"""What a trial costs beyond the steps that it measures, as a step of SLURM and on this machine, over its floor.

The floor is what no launcher gets below that starts fresh processes with `srun`: a step of tasks that import torch.
"""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.figures.speed import measured_s
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
measure: {{rounds: 1, warmup: 5, window_s: 0.1, validation_batches: 1}}
"""
ALLOCATION = "--nodes=2 --exclusive"
TIMER = """
import subprocess, sys, time
started = time.monotonic()
subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
print(time.monotonic() - started)
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

    measured: dict[str, list[dict[int, float]]] = {"local": [], "slurm": [], "true": [], "imports": []}

    def compare() -> None:
        with Cluster(tmp_path / "slurm", tmp_path / "hidden") as cluster:
            for number in range(ROUNDS):
                for launcher in ("local", "slurm"):
                    measured[launcher].append(extra_s(cluster, tmp_path, launcher, f"{launcher}-{number}"))
                for name, command in (("true", ["true"]), ("imports", IMPORTS)):
                    measured[name].append(step_s(cluster, command))

    benchmark.pedantic(compare, rounds=1)
    for size, nodes in SIZES.items():
        middle = {name: statistics.median(each[size] for each in rounds) for name, rounds in measured.items()}
        pairs = zip(measured["slurm"], measured["imports"], strict=True)
        ratios = [trial[size] / floor[size] for trial, floor in pairs]
        print(
            f"\nworld of {size} on {nodes} of {len(NODES)} nodes: local {middle['local']:.2f} s, "
            f"slurm {middle['slurm']:.2f} s; srun true {middle['true']:.2f} s, srun that imports torch "
            f"{middle['imports']:.2f} s; slurm ÷ this floor, by rounds: {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}–{max(ratios):.2f})"
        )


def extra_s(cluster: Cluster, folder: Path, launcher: str, out: str) -> dict[int, float]:
    """What a trial of each world size costs."""
    command = [sys.executable, "-m", "parbench", "run", "cost.yaml", "--launcher", launcher, "--out", out]
    allocated = cluster.salloc(ALLOCATION, *command)
    subprocess.run(allocated, cwd=folder, env=cluster.environment, check=True, capture_output=True)
    trials = [trial for trial in read_run(folder / out).trials if trial.purpose == "measure"]
    return {len(trial.ranks): trial.wall_s - measured_s(trial) for trial in trials}


def step_s(cluster: Cluster, command: list[str]) -> dict[int, float]:
    """The time of a step of each world size inside an allocation, from the start of srun to its end."""
    return {
        size: float(
            cluster.run(
                *cluster.salloc(ALLOCATION, sys.executable, "-c", TIMER),
                *["srun", f"--nodes={nodes}", f"--ntasks={size}", "--overlap", "--cpu-bind=none", *command],
            )
        )
        for size, nodes in SIZES.items()
    }
