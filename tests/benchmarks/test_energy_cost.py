"""What reading energy costs the steps: probes at a window's ends, and beside them a process that polls all the while.

Windows of the same steps take turns on all of this machine's cores, or on its GPU if it has one. Where the kernel shows
no packages, a tree of files stands for them: opening and reading takes as long, and nothing is counted.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.measure.probes.energy import EnergyProbe
from parbench.system import rapl
from parbench.system.cpus import allowed_cores

TURNS, STEPS, SIZE = 15, 60, 1024
POLL_S = 0.05

POLLER = f"""
import sys, time
from contextlib import ExitStack
from pathlib import Path
from parbench.errors import MeterError
from parbench.system import rapl
from parbench.system.gpu_meters import read_clock_mhz, read_energy_j
from parbench.system.nvml import gpu_handles, nvml

rapl.POWERCAP = Path(sys.argv[1])
with ExitStack() as stack:
    driver = stack.enter_context(nvml())
    gpus = gpu_handles(driver) if driver else []
    print("ready", flush=True)
    while True:
        try:
            rapl.read_packages()
        except MeterError:
            pass
        for gpu in gpus:
            read_energy_j(driver, gpu), read_clock_mhz(driver, gpu), driver.nvmlDeviceGetUtilizationRates(gpu)
        time.sleep({POLL_S})
"""


def test_reading_energy(tmp_path: Path, benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    torch.set_num_threads(len(allowed_cores()))
    monkeypatch.setattr(rapl, "POWERCAP", powercap(tmp_path))
    matrix = torch.rand(SIZE, SIZE, device=device)
    seconds: dict[str, list[float]] = {"without": [], "at the ends": [], "polled": []}
    readings: list[float] = []

    def window() -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            torch.mm(matrix, matrix)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def at_the_ends() -> float:
        probe = EnergyProbe([device])
        started = time.perf_counter()
        probe.start_window()
        inside = window()
        probe.end_window()
        probe.keep_window()
        readings.append(time.perf_counter() - started - inside)
        return inside

    def polled() -> float:
        with poller(rapl.POWERCAP):
            return window()

    arms = {"without": window, "at the ends": at_the_ends, "polled": polled}

    def take_turns() -> None:
        window()
        for turn in range(TURNS):
            for name in sorted(arms, reverse=bool(turn % 2)):
                seconds[name].append(arms[name]())

    benchmark.pedantic(take_turns, rounds=1)
    print(f"\nreading takes {1000 * statistics.median(readings):.2f} ms around a window, and none of it")
    for name in ("at the ends", "polled"):
        ratios = [took / bare for took, bare in zip(seconds[name], seconds["without"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        benchmark.extra_info[name] = middle
        print(f"{name:12} ÷ without, by turns: {middle:.4f} (quartiles {low:.4f}, {high:.4f})")


def powercap(folder: Path) -> Path:
    """The machine's own tree, or one of two packages that never count."""
    if list(rapl.POWERCAP.glob("intel-rapl:*")):
        return rapl.POWERCAP
    for number in range(2):
        zone = folder / f"intel-rapl:{number}"
        zone.mkdir()
        (zone / "name").write_text(f"package-{number}\n")
        (zone / "energy_uj").write_text("1\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
    return folder


@contextmanager
def poller(tree: Path) -> Iterator[None]:
    """A process that reads every meter twenty times a second, as long as the block lasts."""
    command = [sys.executable, "-c", POLLER, str(tree)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
