"""Energy of this machine's processor packages, as they count it and the kernel's powercap tree shows it.

Intel calls the counters RAPL, for running average power limit; AMD's processors have them in the same tree. Each is of
a whole package: of all its cores, and of all programs on them (Linux, Documentation/power/powercap/powercap.rst).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from parbench.errors import MeterError
from parbench.system.kernel import read

POWERCAP = Path("/sys/class/powercap")

MICROJOULE = 1e-6

MOST_WATTS = 1000.0
"""More than a package draws: a counter that it could not have filled in some time cannot have started anew twice."""


class PackageCounter(NamedTuple):
    """The energy that a package has used since its counter was last at zero, where it starts anew after `range_j`."""

    energy_j: float
    range_j: float


Packages = Mapping[str, PackageCounter]
"""Counters by the names of their packages, such as `package-0`."""


def read_packages() -> Packages:
    """The counters of all packages. Raises `MeterError` where there is none, or one cannot be read.

    The tree's other zones are parts of a package, or count what packages count once more.
    """
    zones = {name: zone for zone in sorted(POWERCAP.glob("intel-rapl:*")) if (name := read(zone / "name"))}
    packages = {name: zone for name, zone in zones.items() if name.startswith("package")}
    if not packages:
        raise MeterError(f"the kernel shows no package's counter in {POWERCAP}")
    return {
        name: PackageCounter(_read_joules(zone / "energy_uj"), _read_joules(zone / "max_energy_range_uj"))
        for name, zone in packages.items()
    }


def joules_between(before: Packages, after: Packages, seconds: float) -> float:
    """What all packages together used between two readings, `seconds` apart.

    Raises `MeterError` where that is so long that a counter may have started anew more than once.
    """
    if before.keys() != after.keys():
        raise MeterError("packages came or went in the window")
    energy_j = 0.0
    for name, (start_j, range_j) in before.items():
        if seconds * MOST_WATTS >= range_j:
            raise MeterError(f"the counter of {name} may have started anew unseen in {seconds:.0f} s")
        energy_j += (after[name].energy_j - start_j) % range_j
    return energy_j


def _read_joules(file: Path) -> float:
    microjoules = read(file)
    if microjoules is None or not microjoules.isdecimal():
        raise MeterError(f"{file} cannot be read here; most kernels let root alone read it")
    return int(microjoules) * MICROJOULE
