"""The memory control group that this process shares with the ranks it starts."""

from pathlib import Path
from typing import NamedTuple

MEMBERSHIP = Path("/proc/self/cgroup")


GROUPS = Path("/sys/fs/cgroup")


class MemoryGroup(NamedTuple):
    """How many of the group's processes the kernel has killed because memory ran out, and its peak use in bytes."""

    kills: int = 0
    peak: int | None = None


def memory_group() -> MemoryGroup:
    """The group's counts now; zero and None where there is no group, or none that can be read."""
    for folder, events_file, peak_file in _candidates():
        events = dict(line.split(maxsplit=1) for line in _read(folder / events_file).splitlines() if " " in line)
        if "oom_kill" in events:
            peak = _read(folder / peak_file).strip()
            return MemoryGroup(int(events["oom_kill"]), int(peak) if peak.isdecimal() else None)
    return MemoryGroup()


def _candidates() -> list[tuple[Path, str, str]]:
    """Folders where the group may be, each with the names of its files for kills and for the peak.

    The folder depends on the version of cgroups, and on whether a container has a cgroup namespace of its own.
    """
    candidates: list[tuple[Path, str, str]] = []
    for line in _read(MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, files = GROUPS / "memory", ("memory.oom_control", "memory.max_usage_in_bytes")
        elif not controllers:
            top, files = GROUPS, ("memory.events", "memory.peak")
        else:
            continue
        candidates += [(top / path.strip("/"), *files), (top, *files)]
    return candidates


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
