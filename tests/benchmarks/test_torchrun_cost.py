"""What a trial costs beyond the steps that it measures, under torch's elastic agents and under the local launcher.

On one machine, and between two emulated hosts of two devices each; beside it, what `torchrun` itself takes to start as
many processes that only import torch. All take turns, round by round.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.figures.speed import measured_s
from parbench.results.store import read_run
from tests.launch.hosts import PARBENCH, Host, hosts, together

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
measure: {{rounds: 1, warmup: 5, window_s: 0.1, validation_batches: 1}}
"""


def test_trials_under_torchrun(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    (tmp_path / "cost.yaml").write_text(SCENARIO)
    (tmp_path / "imports.py").write_text("import torch, torch._dynamo\n")
    measured: dict[str, list[dict[int, float]]] = {"local": [], "torchrun": [], "apart": [], "imports": []}

    def compare() -> None:
        try:
            with hosts(2, tmp_path) as found:
                for host in found:
                    (host.folder / "cost.yaml").write_text(SCENARIO)
                for number in range(ROUNDS):
                    for launcher in ("local", "torchrun"):
                        measured[launcher].append(here(tmp_path, launcher, f"{launcher}-{number}"))
                    measured["apart"].append(between(found, f"apart-{number}"))
                    measured["imports"].append({size: floor_s(tmp_path, size) for size in SIZES})
        except LookupError as reason:
            pytest.skip(f"no hosts here: {reason}")

    benchmark.pedantic(compare, rounds=1)
    for size in SIZES:
        middle = {name: statistics.median(each[size] for each in rounds) for name, rounds in measured.items()}
        pairs = zip(measured["torchrun"], measured["imports"], strict=True)
        ratios = [trial[size] / floor[size] for trial, floor in pairs]
        print(
            f"\nworld of {size}: local {middle['local']:.2f} s, torchrun {middle['torchrun']:.2f} s, with a second "
            f"host {middle['apart']:.2f} s; torchrun of imports of torch {middle['imports']:.2f} s; torchrun ÷ this "
            f"floor, by rounds: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        )


def here(folder: Path, launcher: str, out: str) -> dict[int, float]:
    command = [*PARBENCH, "run", "cost.yaml", "--launcher", launcher, "--out", out]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return extra_s(folder / out)


def between(found: list[Host], out: str) -> dict[int, float]:
    for node in together(found, "cost.yaml", "--out", out, cpus="0,1"):
        node.communicate()
    return extra_s(found[0].folder / out)


def extra_s(folder: Path) -> dict[int, float]:
    """What a trial of each world size costs."""
    trials = [trial for trial in read_run(folder).trials if trial.purpose == "measure"]
    return {len(trial.ranks): trial.wall_s - measured_s(trial) for trial in trials}


def floor_s(folder: Path, size: int) -> float:
    started = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", "imports.py"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - started
