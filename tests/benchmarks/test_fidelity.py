"""Is what parbench reports what a bare script reaches? Both arms interleaved; a ratio a round, then their spread."""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.cells import read_plan
from parbench.devices import Machine, allowed_cores
from parbench.launch.local import LocalLauncher
from parbench.results.figures import tokens_per_s
from parbench.results.statistics import summarise
from parbench.run import Task, measure
from parbench.workloads.corpus import prepare

ROUNDS = 10
BARE = Path(__file__).parent / "bare.py"
REPOSITORY = Path(__file__).parents[2]
SCENARIO = """
workloads:
  w:
    model: {kind: FAMILY, layers: 4, d_model: 128}
    seq_len: 64
    global_batch: 32
strategies: [single, ddp]
devices: {kind: cpu, counts: [COUNT]}
measure: {window_s: 1.5}
"""


@pytest.mark.parametrize("family", ["lstm", "transformer"])
@pytest.mark.parametrize(("strategy", "devices"), [("single", 1), ("ddp", 2)])
def test_reported_over_bare_throughput(
    family: str, strategy: str, devices: int, launcher: LocalLauncher, tmp_path: Path, benchmark: BenchmarkFixture
) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO.replace("FAMILY", family).replace("COUNT", str(devices)))
    plan = read_plan(path, Machine(cores=allowed_cores()))
    cell = next(cell for cell in plan.runnable if cell.record.strategy == strategy)
    corpus = prepare(cell.workload.data, seq_len=64, seed=0, folder=tmp_path)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)] * (devices > 1)
    command = [sys.executable, *torchrun, str(BARE), strategy, family]
    ratios: list[float] = []

    def reported(number: int) -> float:
        task = Task(purpose="measure", cell=cell, key=cell.record.key, round=number, models=1)
        return tokens_per_s(measure(plan, task, corpus, tmp_path / "trial", launcher, "here"), cell.record)

    def bare() -> float:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def pair() -> None:
        number, arms = len(ratios), {"reported": 0.0, "bare": 0.0}
        for arm in ("reported", "bare") if number % 2 else ("bare", "reported"):
            arms[arm] = reported(number) if arm == "reported" else bare()
        ratios.append(arms["reported"] / arms["bare"])

    benchmark.pedantic(pair, rounds=ROUNDS)
    summary = summarise(ratios)
    benchmark.extra_info["ratio"] = summary._asdict()
    print(f"\n{strategy} {family}: parbench ÷ bare = {summary.mean:.3f} [{summary.low:.3f}, {summary.high:.3f}]")
    print(f"median of {len(ratios)} rounds {statistics.median(ratios):.3f}")


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_step_by_step_in_one_process(family: str, benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.steps", family]

    def ratio() -> float:
        return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout)

    ratios: list[float] = []
    benchmark.pedantic(lambda: ratios.append(ratio()), rounds=3)
    print(f"\nsingle {family}, steps in turn: parbench ÷ bare = {', '.join(f'{each:.3f}' for each in ratios)}")
