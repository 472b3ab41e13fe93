"""What files of the Linux kernel say of this machine."""

import os
from pathlib import Path

from parbench.system.cpus import allowed_cpus

CPUS = Path("/sys/devices/system/cpu")


CPUINFO = Path("/proc/cpuinfo")


def read(path: Path) -> str | None:
    """The text of a file of the kernel without surrounding blanks; None where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None


def governor() -> str | None:
    """The frequency governors of the allowed CPUs, most often one; None where the kernel shows none."""
    found = {read(CPUS / f"cpu{cpu}/cpufreq/scaling_governor") for cpu in allowed_cpus()}
    return ", ".join(sorted(filter(None, found))) or None


def load_average() -> tuple[float, float, float] | None:
    """The system's load averages over 1, 5 and 15 minutes."""
    try:
        return os.getloadavg()
    except OSError:
        return None


def _cpu_model() -> str | None:
    lines = (line.partition(":") for line in (read(CPUINFO) or "").splitlines())
    said = {name.strip(): value.strip() for name, _, value in lines}
    if "CPU part" in said:  # Arm's kernel knows numbers, not names
        return f"Arm implementer {said.get('CPU implementer')} part {said['CPU part']}"
    return said.get("model name") or None
