"""The memory control group that this process shares with the ranks it starts."""

from pathlib import Path
from typing import NamedTuple

MEMBERSHIP = Path("/proc/self/cgroup")


GROUPS = Path("/sys/fs/cgroup")


class MemoryGroup(NamedTuple):
    """How many of its processes the kernel has killed for want of memory, and the peak of all together, in bytes."""

    kills: int = 0
    peak: int | None = None


def memory_group() -> MemoryGroup:
    """What the kernel tells of the group now; nothing where there is none, or none that can be read."""
    for folder, events, peak in _places():
        counted = dict(line.split(maxsplit=1) for line in _read(folder / events).splitlines() if " " in line)
        if "oom_kill" in counted:
            told = _read(folder / peak).strip()
            return MemoryGroup(int(counted["oom_kill"]), int(told) if told.isdecimal() else None)
    return MemoryGroup()


def _places() -> list[tuple[Path, str, str]]:
    """Where the group may be, with its files for kills and peak: cgroup v1 or v2, seen from outside or from within."""
    found: list[tuple[Path, str, str]] = []
    for line in _read(MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, files = GROUPS / "memory", ("memory.oom_control", "memory.max_usage_in_bytes")
        elif not controllers:
            top, files = GROUPS, ("memory.events", "memory.peak")
        else:
            continue
        found += [(top / path.strip("/"), *files), (top, *files)]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
