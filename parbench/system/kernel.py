"""Facts on this machine from files of the Linux kernel."""

import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path

from parbench.system.cpus import allowed_cpus, cpu_list

CPUS = Path("/sys/devices/system/cpu")


CPUINFO = Path("/proc/cpuinfo")


CGROUP = Path("/sys/fs/cgroup")


BOOT = Path("/proc/sys/kernel/random/boot_id")
PCI_DEVICES = Path("/sys/bus/pci/devices")


def read(path: Path) -> str | None:
    """The text of a file of the kernel without surrounding blanks; None where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None


def machine_id() -> str:
    """The same for all that runs on one machine until it starts again, also in network namespaces or containers."""
    return hashlib.sha256((read(BOOT) or socket.gethostname()).encode()).hexdigest()[:16]


def cpus_in(path: Path) -> frozenset[int]:
    """The logical CPUs that a file of the kernel lists; empty where it cannot be read."""
    with suppress(ValueError):
        return cpu_list(read(path) or "")
    return frozenset()


def governor() -> str | None:
    """The frequency governors of the allowed CPUs, most often one; None where the kernel shows none."""
    governors = {read(CPUS / f"cpu{cpu}/cpufreq/scaling_governor") for cpu in allowed_cpus()}
    return ", ".join(sorted(filter(None, governors))) or None


def load_average() -> tuple[float, float, float] | None:
    """The system's load averages over 1, 5 and 15 minutes."""
    try:
        return os.getloadavg()
    except OSError:
        return None


def cpu_model() -> str | None:
    """The name of the CPU; on Arm the numbers of its implementer and part, which is all that the kernel knows."""
    lines = (line.partition(":") for line in (read(CPUINFO) or "").splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    if "CPU part" in fields:
        return f"Arm implementer {fields.get('CPU implementer')} part {fields['CPU part']}"
    return fields.get("model name") or None
