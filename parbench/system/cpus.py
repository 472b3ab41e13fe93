"""The CPU cores that this process may use, as the kernel and control groups grant them."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path


def allowed_cores() -> tuple[tuple[int, ...], ...]:
    """The allowed physical cores; a control group's CPU quota leaves out those it does not pay for."""
    allowed = allowed_cpus()
    cores = sorted({tuple(sorted(_siblings(cpu) & allowed)) for cpu in allowed})
    quota = cpu_quota()
    return tuple(cores if quota is None else cores[: max(1, int(quota))])


def allowed_cpus() -> frozenset[int]:
    """The logical CPUs that the scheduler may run this process on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """The CPU time that control groups grant, in cores; None where there is no limit."""
    return _quota_of(Path("/sys/fs/cgroup/cpu.max"), None) or _quota_of(
        Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    )


def cpu_list(text: str) -> frozenset[int]:
    """The numbers in the kernel's list format: '0-2,5' is {0, 1, 2, 5}."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def cpu_ranges(cpus: Collection[int]) -> str:
    """The numbers in the kernel's list format: {0, 1, 2, 5} is '0-2,5'."""
    ranges: list[tuple[int, int]] = []
    for cpu in sorted(cpus):
        first = ranges.pop()[0] if ranges and ranges[-1][1] == cpu - 1 else cpu
        ranges.append((first, cpu))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def cpus_of(cores: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The logical CPUs of physical cores, core by core."""
    return tuple(cpu for core in cores for cpu in core)


def _siblings(cpu: int) -> frozenset[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return cpu_list(path.read_text()) | {cpu}
    except (OSError, ValueError):
        return frozenset({cpu})


def _quota_of(quota_path: Path, period_path: Path | None) -> float | None:
    try:
        words = quota_path.read_text().split() + (period_path.read_text().split() if period_path else [])
        quota, period = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):
        return None
    return quota / period if quota > 0 else None
