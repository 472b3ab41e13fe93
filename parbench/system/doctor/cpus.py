"""Checks of the CPUs: how many there are, who else uses them, and whether their speed is steady."""

import os
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import quantiles

import psutil

from parbench.system.cpus import allowed_cores, allowed_cpus, cpu_quota
from parbench.system.doctor.check import Check, list_numbers, warn_if
from parbench.system.kernel import CGROUP, CPUS, cpus_in, governor, load_average, read

NODES = Path("/sys/devices/system/node")
SAMPLE_S = 0.5
BUSY_PERCENT = 10.0  # of one core, all other processes together
STEAL_PERCENT = 1.0
SPIN_TURNS = 50_000  # about 1 ms
SPIN_S, ALL_SPINS_S = 0.5, 4.0
STEADY_SPREAD = 1.15


def check_cores() -> Iterator[Check]:
    """How many physical cores there are to spread work over, and is all of each ours?"""
    allowed, present = allowed_cores(), psutil.cpu_count(logical=False) or "unknown"
    state = f"{len(allowed)} of {present} physical cores allowed, logical CPUs per core: {max(map(len, allowed))}"
    yield warn_if(len(allowed) < 2, "cores", state, "Allow more cores, to compare more than one CPU device.")
    others = {sibling for cpu in allowed_cpus() for sibling in _siblings(cpu)} - allowed_cpus()
    if others:
        state = f"CPUs {list_numbers(others)} share a core with allowed CPUs and are not allowed themselves"
        yield Check("cores", "warning", state, "Allow whole cores: both logical CPUs of each, or neither.")


def check_quota() -> Iterator[Check]:
    """Does a control group stop this process once it has used its share of CPU time?"""
    granted = cpu_quota()
    if granted is None:
        yield Check("CPU quota", "ok", "none")
        return
    throttled = re.search(r"^nr_throttled ([1-9]\d*)", read(CGROUP / "cpu.stat") or "", re.MULTILINE)
    state = f"{granted:g} cores of CPU time{f', used up in {throttled[1]} periods so far' if throttled else ''}"
    advice = "Pin the container to whole cores (docker run --cpuset-cpus) instead of granting it CPU time."
    if granted < 1:
        yield Check("CPU quota", "problem", state, advice)
    else:
        yield warn_if(bool(throttled) or not granted.is_integer(), "CPU quota", state, advice)


def check_other_work() -> Iterator[Check]:
    """What do other processes, and other virtual machines, take of the CPU right now?"""
    others = [process for process in psutil.process_iter() if process.pid != os.getpid()]
    _cpu_percents(others)
    psutil.cpu_times_percent()
    time.sleep(SAMPLE_S)
    percents = sorted(_cpu_percents(others), reverse=True)
    steal = float(getattr(psutil.cpu_times_percent(), "steal", 0.0))
    total = sum(percent for percent, _ in percents)
    top = "".join(f", {name} {percent:.0f} %" for percent, name in percents[:3] if percent >= 1)
    state = f"{total:.0f} % of a core{top}"
    yield warn_if(total > BUSY_PERCENT, "other processes", state, "Stop them, or wait until they are done.")
    state = f"{steal:.1f} % of the CPU time goes to other virtual machines"
    yield warn_if(steal > STEAL_PERCENT, "stolen time", state, "Measure on a machine with cores of its own.")


def check_load() -> Iterator[Check]:
    """Has the machine been busy for the last minute?"""
    averages, present = load_average(), os.cpu_count() or 1
    if averages:
        state = f"{averages[0]:.2f} over the last minute, on {present} logical CPUs"
        busy = averages[0] > max(1.0, 0.1 * present)
        yield warn_if(busy, "load", state, "Wait until the load average has fallen.")


def check_frequency() -> Iterator[Check]:
    """Does the clock of a core depend on what the machine does?"""
    setting = governor() or "not shown here"
    advice = "Keep the clock steady: sudo cpupower frequency-set -g performance."
    yield warn_if(setting not in ("performance", "not shown here"), "frequency governor", setting, advice)
    if read(CPUS / "intel_pstate/no_turbo") == "0" or read(CPUS / "cpufreq/boost") == "1":
        advice = "Turn turbo off to compare device counts: few busy cores clock higher than many."
        yield Check("turbo", "warning", "on", advice)


def check_heat() -> Iterator[Check]:
    """Have CPUs been slowed down because they were too hot?"""
    counts = [read(path) or "" for path in CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    most = max((int(count) for count in counts if count.isdecimal()), default=0)
    if most:
        state = f"slowed a core {most} times since the machine started"
        yield Check("CPU temperature", "warning", state, "Mend the cooling if this number grows during a run.")


def check_numa() -> Iterator[Check]:
    """Do the allowed CPUs reach over several memory nodes?"""
    nodes = [path for path in NODES.glob("node[0-9]*/cpulist") if cpus_in(path) & allowed_cpus()]
    if len(nodes) > 1:
        advice = "Bind the run to one node (numactl --cpunodebind=0 --membind=0) where its cores are enough."
        yield Check("NUMA", "ok", f"the allowed CPUs lie on {len(nodes)} nodes", advice)


def check_steadiness() -> Iterator[Check]:
    """Does equal work take equal time on every core? Shows the neighbours that a virtual machine hides."""
    cpus = [core[0] for core in allowed_cores()]
    budget_s = min(SPIN_S, ALL_SPINS_S / len(cpus))
    with ThreadPoolExecutor(max_workers=1) as apart:  # so that no other thread of ours is pinned
        spreads = list(apart.map(lambda cpu: _spread(cpu, budget_s), cpus))
    worst, cpu = max(zip(spreads, cpus, strict=True))
    state = f"the slowest twentieth of equal work takes {worst:.2f} times as long as the fastest, on CPU {cpu}"
    advice = "Stop what shares this core, which in a virtual machine can be another one, or measure more rounds."
    yield warn_if(worst > STEADY_SPREAD, "steadiness", state, advice)


def _siblings(cpu: int) -> frozenset[int]:
    return cpus_in(CPUS / f"cpu{cpu}/topology/thread_siblings_list")


def _cpu_percents(processes: Iterable[psutil.Process]) -> list[tuple[float, str]]:
    """The CPU time of each since the call before, in percent of one core, with its name and number."""
    percents = []
    for process in processes:
        with suppress(psutil.Error):
            percents.append((process.cpu_percent(), f"{process.name()} ({process.pid})"))
    return percents


def _spread(cpu: int, budget_s: float) -> float:
    """The 95th percentile of the time of equal work on one CPU, over the 5th.

    Not over the median: where a neighbour takes most of the core, the median is slow itself.
    """
    os.sched_setaffinity(0, {cpu})
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while len(times) < 20 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(SPIN_TURNS):
            pass
        times.append(time.perf_counter() - start)
    twentieths = quantiles(times, n=20)
    return twentieths[-1] / twentieths[0]
