"""What parbench costs beyond what it measures: a campaign, a trial, the parent's memory, and `--help`."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.figures.speed import measured_s
from parbench.results.store import read_run

HEADLINE = Path(__file__).parents[2] / "scenarios" / "lstm_scaling.yaml"


def test_campaign(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    memory: list[int] = []

    def campaign() -> float:
        started = time.monotonic()
        command = [sys.executable, "-m", "parbench", "run", str(HEADLINE), "--out", str(tmp_path / "out")]
        with subprocess.Popen(
            [*command, "--rounds", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                memory.append(psutil.Process(process.pid).memory_info().rss)
                time.sleep(1)
        return time.monotonic() - started

    wall_s = benchmark.pedantic(campaign, rounds=1)
    trials = read_run(tmp_path / "out").trials
    steps_s = sum(measured_s(trial) for trial in trials)
    print(f"\ncampaign: {wall_s:.1f} s wall ÷ {steps_s:.1f} s of warm-up and windows = {wall_s / steps_s:.3f}")
    for size in (1, 2):
        extra = [trial.wall_s - measured_s(trial) for trial in trials[1:] if len(trial.ranks) == size]
        print(f"a trial of world size {size} costs {statistics.median(extra):.2f} s more (max {max(extra):.2f} s)")
    half = len(memory) // 2
    print(f"parent: {max(memory[3:half]) / 1e6:.0f} MB in the first half, {max(memory) / 1e6:.0f} MB at most")


def test_help_over_importing_click(benchmark: BenchmarkFixture) -> None:
    ratios: list[float] = []

    def seconds(*arguments: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started

    def pair() -> None:
        ratios.append(seconds("-m", "parbench", "--help") / seconds("-c", "import click"))

    benchmark.pedantic(pair, rounds=20, warmup_rounds=2)
    print(f"\nparbench --help ÷ import click: median {statistics.median(ratios):.2f}")
