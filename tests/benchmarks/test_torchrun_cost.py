"""What a trial costs beyond the steps that it measures, under torch's elastic agents and under the local launcher.

On one machine, and between two emulated hosts of two devices each; beside it, what `torchrun` itself takes to start as
many processes that only import torch.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.results.figures import measured_s
from parbench.results.store import read_run
from tests.launch.hosts import PARBENCH, hosts, together

ROUNDS = 5
SIZES = (1, 2, 4)
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


def test_trials_under_torchrun(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    (tmp_path / "cost.yaml").write_text(SCENARIO)
    (tmp_path / "imports.py").write_text("import torch, torch._dynamo\n")

    def compare() -> None:
        extra = {launcher: here(tmp_path, launcher) for launcher in ("local", "torchrun")}
        apart = between_hosts(tmp_path)
        for size in SIZES:
            print(
                f"\nworld of {size}: local {extra['local'][size]:.2f} s, torchrun {extra['torchrun'][size]:.2f} s, "
                f"with a second host {apart[size]:.2f} s; torchrun of imports of torch {floor_s(tmp_path, size):.2f} s"
            )

    benchmark.pedantic(compare, rounds=1)


def here(folder: Path, launcher: str) -> dict[int, float]:
    command = [*PARBENCH, "run", "cost.yaml", "--launcher", launcher, "--out", launcher]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return extra_s(folder / launcher)


def between_hosts(folder: Path) -> dict[int, float]:
    try:
        with hosts(2, folder) as found:
            for host in found:
                (host.folder / "cost.yaml").write_text(SCENARIO)
            for node in together(found, "cost.yaml", "--out", "apart", cpus="0,1"):
                node.communicate()
            return extra_s(found[0].folder / "apart")
    except LookupError as reason:
        pytest.skip(f"no hosts here: {reason}")


def extra_s(folder: Path) -> dict[int, float]:
    """The median over trials of what each world size costs."""
    trials = [trial for trial in read_run(folder).trials if trial.purpose == "measure"]
    return {
        size: statistics.median(trial.wall_s - measured_s(trial) for trial in trials if len(trial.ranks) == size)
        for size in SIZES
    }


def floor_s(folder: Path, size: int) -> float:
    started = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", "imports.py"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - started
