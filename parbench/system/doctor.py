"""What this machine is, and what would disturb a measurement on it. Needs no torch."""

import os
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.system.cpus import allowed_cores, allowed_cpus, cpu_list, cpu_quota
from parbench.system.environment import GIB
from parbench.system.kernel import CPUS, governor, load_average, read
from parbench.system.nvml import answer, gpu_handles, nvml
from parbench.system.software import installed_torch

Level = Literal["ok", "warning", "problem"]


CGROUP = Path("/sys/fs/cgroup")


NODES = Path("/sys/devices/system/node")


SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - nothing is written there


OLDEST_TORCH, FIRST_UNTRIED_TORCH = (2, 11), (2, 14)


SAMPLE_S = 0.5


BUSY_PERCENT = 10.0  # of one core, all other processes together


STEAL_PERCENT = 1.0


OPEN_FILES = 1024


SPIN_TURNS = 50_000  # about 1 ms


SPIN_S, ALL_SPINS_S = 0.5, 4.0


STEADY_SPREAD = 1.15


HARMFUL_VARIABLES = (
    ("OMP_WAIT_POLICY", "passive", "Unset it: threads that sleep between operators can double a step's time."),
    ("GOMP_SPINCOUNT", "0", "Unset it: threads that sleep between operators can double a step's time."),
    ("OMP_NUM_THREADS", ".*", "Unset it: ranks ignore it and use as many threads as their device has cores."),
    ("LD_PRELOAD", ".+", "Unset it unless what it loads is part of what you measure."),
    ("CUDA_LAUNCH_BLOCKING", "[1-9].*", "Unset it: every kernel launch waits for the GPU."),
    ("PYTORCH_NO_CUDA_MEMORY_CACHING", ".+", "Unset it: every tensor costs a cudaMalloc."),
    ("TORCH_DISTRIBUTED_DEBUG", "info|detail", "Unset it: every collective is checked."),
    ("NCCL_DEBUG", "info|trace", "Unset it: collectives write a log."),
    ("NCCL_P2P_DISABLE", "[1-9].*", "Unset it: GPUs exchange through the host's memory."),
)


THROTTLE_REASONS = {
    "SwPowerCap": "its power limit",
    "HwSlowdown": "a hardware slowdown",
    "SwThermalSlowdown": "its temperature",
    "HwThermalSlowdown": "its temperature (hardware)",
    "HwPowerBrakeSlowdown": "the power brake",
    "SyncBoost": "sync boost",
}


STYLES: Mapping[Level, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing found: what it is about, how bad it is, and what to do about it."""

    topic: str
    level: Level
    found: str
    advice: str | None = None


def examine(broken: Mapping[str, str]) -> list[Finding]:
    """Everything found on this machine, in a fixed order; takes some seconds.

    `broken` are the plug-ins that could not be imported, each with the reason.
    """
    findings = [finding for check in CHECKS for finding in check()]
    return findings + list(plug_ins(broken))


def render(findings: Iterable[Finding], console: Console) -> None:
    """Prints the findings as a table."""
    table = Table("", "topic", "found", "advice")
    for finding in findings:
        mark = Text(finding.level, STYLES[finding.level])
        table.add_row(mark, *map(_plain, (finding.topic, finding.found, finding.advice or "")))
    console.print(table)


def torch() -> Iterator[Finding]:
    """Is there a torch that parbench was tried with?"""
    oldest, newest = (".".join(map(str, version)) for version in (OLDEST_TORCH, FIRST_UNTRIED_TORCH))
    advice = f"Install torch>={oldest},<{newest}."
    version, cuda = installed_torch()
    if version is None:
        yield Finding("torch", "problem", "not installed", advice)
        return
    release = tuple(map(int, re.findall(r"\d+", version)[:2]))
    untried = not OLDEST_TORCH <= release < FIRST_UNTRIED_TORCH
    yield _warn_if(untried, "torch", f"{version}, built for {f'CUDA {cuda}' if cuda else 'CPU'}", advice)


def cores() -> Iterator[Finding]:
    """How many physical cores there are to spread work over, and is all of each ours?"""
    allowed, present = allowed_cores(), psutil.cpu_count(logical=False) or "unknown"
    found = f"{len(allowed)} of {present} physical cores allowed, logical CPUs per core: {max(map(len, allowed))}"
    yield _warn_if(len(allowed) < 2, "cores", found, "Allow more cores, to compare more than one CPU device.")
    strangers = {sibling for cpu in allowed_cpus() for sibling in _siblings(cpu)} - allowed_cpus()
    if strangers:
        found = f"CPUs {_numbers(strangers)} share a core with allowed CPUs and are not allowed themselves"
        yield Finding("cores", "warning", found, "Allow whole cores: both logical CPUs of each, or neither.")


def quota() -> Iterator[Finding]:
    """Does a control group stop this process once it has used its share of CPU time?"""
    granted = cpu_quota()
    if granted is None:
        yield Finding("CPU quota", "ok", "none")
        return
    throttled = re.search(r"^nr_throttled ([1-9]\d*)", read(CGROUP / "cpu.stat") or "", re.MULTILINE)
    found = f"{granted:g} cores of CPU time{f', used up in {throttled[1]} periods so far' if throttled else ''}"
    advice = "Pin the container to whole cores (docker run --cpuset-cpus) instead of granting it CPU time."
    if granted < 1:
        yield Finding("CPU quota", "problem", found, advice)
    else:
        yield _warn_if(bool(throttled) or not granted.is_integer(), "CPU quota", found, advice)


def other_work() -> Iterator[Finding]:
    """What do other processes, and other virtual machines, take of the CPU right now?"""
    others = [process for process in psutil.process_iter() if process.pid != os.getpid()]
    _cpu_percents(others)
    psutil.cpu_times_percent()
    time.sleep(SAMPLE_S)
    percents = sorted(_cpu_percents(others), reverse=True)
    steal = float(getattr(psutil.cpu_times_percent(), "steal", 0.0))
    total = sum(percent for percent, _ in percents)
    top = "".join(f", {name} {percent:.0f} %" for percent, name in percents[:3] if percent >= 1)
    found = f"{total:.0f} % of a core{top}"
    yield _warn_if(total > BUSY_PERCENT, "other processes", found, "Stop them, or wait until they are done.")
    found = f"{steal:.1f} % of the CPU time goes to other virtual machines"
    yield _warn_if(steal > STEAL_PERCENT, "stolen time", found, "Measure on a machine with cores of its own.")


def load() -> Iterator[Finding]:
    """Has the machine been busy for the last minute?"""
    averages, present = load_average(), os.cpu_count() or 1
    if averages:
        found = f"{averages[0]:.2f} over the last minute, on {present} logical CPUs"
        busy = averages[0] > max(1.0, 0.1 * present)
        yield _warn_if(busy, "load", found, "Wait until the load average has fallen.")


def frequency() -> Iterator[Finding]:
    """Does the clock of a core depend on what the machine does?"""
    setting = governor() or "not shown here"
    advice = "Keep the clock steady: sudo cpupower frequency-set -g performance."
    yield _warn_if(setting not in ("performance", "not shown here"), "frequency governor", setting, advice)
    if read(CPUS / "intel_pstate/no_turbo") == "0" or read(CPUS / "cpufreq/boost") == "1":
        advice = "Turn turbo off to compare device counts: few busy cores clock higher than many."
        yield Finding("turbo", "warning", "on", advice)


def heat() -> Iterator[Finding]:
    """Have CPUs been slowed down because they were too hot?"""
    counts = [read(path) or "" for path in CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    most = max((int(count) for count in counts if count.isdecimal()), default=0)
    if most:
        found = f"slowed a core {most} times since the machine started"
        yield Finding("CPU temperature", "warning", found, "Mend the cooling if this number grows during a run.")


def memory() -> Iterator[Finding]:
    """Is there memory for the models, without swapping?"""
    state, swapped = psutil.virtual_memory(), psutil.swap_memory().used
    limit = read(CGROUP / "memory.max") or ""
    granted = min(state.total, int(limit)) if limit.isdecimal() else state.total
    free = min(state.available, granted)
    found = f"{free / GIB:.1f} of {granted / GIB:.1f} GiB available"
    yield _warn_if(free < max(2 * GIB, granted / 10), "memory", found, "Stop what holds the memory.")
    if swapped > GIB // 16:
        advice = "Free memory and empty the swap: sudo swapoff -a && sudo swapon -a."
        yield Finding("swap", "warning", f"{swapped / GIB:.1f} GiB in use", advice)


def numa() -> Iterator[Finding]:
    """Do the allowed CPUs reach over several memory nodes?"""
    nodes = [path for path in NODES.glob("node[0-9]*/cpulist") if _cpus_in(path) & allowed_cpus()]
    if len(nodes) > 1:
        advice = "Bind the run to one node (numactl --cpunodebind=0 --membind=0) where its cores are enough."
        yield Finding("NUMA", "ok", f"the allowed CPUs lie on {len(nodes)} nodes", advice)


def variables() -> Iterator[Finding]:
    """Is an environment variable set that slows torch down, or is not what it seems?"""
    harmful = [
        Finding("variable", "warning", f"{name}={os.environ[name]}", advice)
        for name, pattern, advice in HARMFUL_VARIABLES
        if name in os.environ and re.fullmatch(pattern, os.environ[name].strip(), re.IGNORECASE)
    ]
    yield from harmful or [Finding("variables", "ok", "none set that would disturb a measurement")]


def space() -> Iterator[Finding]:
    """Is there room for what ranks share, and for results?"""
    yield from _room("shared memory", SHARED_MEMORY, "Give the container more: docker run --shm-size=8g.")
    yield from _room("disk", Path(), "Free space in this folder's file system, or run in another folder.")


def open_files() -> Iterator[Finding]:
    """May ranks open enough sockets and files?"""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = limit != resource.RLIM_INFINITY and limit < OPEN_FILES
    found = "no limit" if limit == resource.RLIM_INFINITY else f"up to {limit}"
    yield _warn_if(few, "open files", found, f"Raise the limit: ulimit -n {4 * OPEN_FILES}.")


def gpus() -> Iterator[Finding]:
    """Can torch use the GPUs that there are, and does something disturb them?"""
    with nvml() as driver:
        if driver is None:
            yield Finding("GPUs", "ok", "no NVIDIA driver answers: only CPU devices can be measured")
            return
        handles = gpu_handles(driver)
        yield _usable(driver, len(handles))
        for number, handle in enumerate(handles):
            yield from _gpu(driver, f"GPU {number}", handle)


def steadiness() -> Iterator[Finding]:
    """Does equal work take equal time on every core? Shows the neighbours that a virtual machine hides."""
    cpus = [core[0] for core in allowed_cores()]
    budget_s = min(SPIN_S, ALL_SPINS_S / len(cpus))
    with ThreadPoolExecutor(max_workers=1) as apart:  # so that no other thread of ours is pinned
        spreads = list(apart.map(lambda cpu: _spread(cpu, budget_s), cpus))
    worst, cpu = max(zip(spreads, cpus, strict=True))
    found = f"the slowest twentieth of equal work takes {worst:.2f} times as long as the fastest, on CPU {cpu}"
    advice = "Stop what shares this core, which in a virtual machine can be another one, or measure more rounds."
    yield _warn_if(worst > STEADY_SPREAD, "steadiness", found, advice)


def plug_ins(broken: Mapping[str, str]) -> Iterator[Finding]:
    """Which plug-ins could not be imported?"""
    for name, reason in broken.items():
        yield Finding(f"plug-in {name}", "problem", reason, "Mend or uninstall the package that provides it.")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    torch, cores, quota, other_work, load, frequency, heat, memory, numa, variables, space, open_files, gpus, steadiness
)  # fmt: skip


def _warn_if(disturbed: bool, topic: str, found: str, advice: str) -> Finding:
    return Finding(topic, "warning", found, advice) if disturbed else Finding(topic, "ok", found)


def _plain(text: str) -> Text:
    """As `Text`, nothing is markup; what cannot be printed, such as terminal codes, is left out."""
    return Text("".join(filter(str.isprintable, " ".join(text.split()))))


def _siblings(cpu: int) -> frozenset[int]:
    return _cpus_in(CPUS / f"cpu{cpu}/topology/thread_siblings_list")


def _cpus_in(path: Path) -> frozenset[int]:
    with suppress(ValueError):
        return cpu_list(read(path) or "")
    return frozenset()


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _cpu_percents(processes: Iterable[psutil.Process]) -> list[tuple[float, str]]:
    """The CPU time of each since the call before, in percent of one core, with its name and number."""
    percents = []
    for process in processes:
        with suppress(psutil.Error):
            percents.append((process.cpu_percent(), f"{process.name()} ({process.pid})"))
    return percents


def _room(topic: str, path: Path, advice: str) -> Iterator[Finding]:
    with suppress(OSError):
        free = shutil.disk_usage(path).free
        yield _warn_if(free < GIB, topic, f"{free / GIB:.1f} GiB free", advice)


def _usable(driver: Any, visible: int) -> Finding:
    torch_version, cuda = installed_torch()
    present = answer(driver.nvmlDeviceGetCount) or 0
    supported = answer(driver.nvmlSystemGetCudaDriverVersion_v2) or 0
    version = f"CUDA {supported // 1000}.{supported % 1000 // 10}"
    found = f"{visible} of {present} visible, driver for {version}"
    if present and torch_version and cuda is None:
        return Finding("GPUs", "problem", f"{found}, torch for CPU", f"Install a torch that is built for {version}.")
    if cuda and supported and int(cuda.partition(".")[0]) > supported // 1000:
        return Finding(
            "GPUs", "problem", f"{found}, torch for CUDA {cuda}", "Update the driver, or install an older torch."
        )
    return _warn_if(visible < present, "GPUs", found, "Check CUDA_VISIBLE_DEVICES, which hides the others.")


def _gpu(driver: Any, topic: str, gpu: Any) -> Iterator[Finding]:
    yield Finding(topic, "ok", answer(driver.nvmlDeviceGetName, gpu) or "unnamed")
    if answer(driver.nvmlDeviceGetPersistenceMode, gpu) == driver.NVML_FEATURE_DISABLED:
        yield Finding(topic, "warning", "persistence mode is off", "Turn it on: sudo nvidia-smi -pm 1.")
    strangers = answer(driver.nvmlDeviceGetComputeRunningProcesses, gpu)
    if strangers:
        found = f"processes {_numbers(stranger.pid for stranger in strangers)} compute on it"
        yield Finding(topic, "warning", found, "Stop them, or hide this GPU with CUDA_VISIBLE_DEVICES.")
    bits = answer(driver.nvmlDeviceGetCurrentClocksThrottleReasons, gpu) or 0
    reasons = [
        why for name, why in THROTTLE_REASONS.items() if bits & getattr(driver, f"nvmlClocksThrottleReason{name}")
    ]
    if reasons:
        advice = "Let it cool down, and read its limits with nvidia-smi -q -d PERFORMANCE."
        yield Finding(topic, "warning", f"slowed down by {', '.join(reasons)}", advice)


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
