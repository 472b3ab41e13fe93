"""Energy, utilisation and clocks in the windows of a rank: counters and the driver's own samples.

They are read before the ranks meet for a window, and after it. Nothing runs beside the steps.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from parbench.errors import MeterError
from parbench.records.energy import (
    EnergyRecord,
    GpuReadings,
    PackageReadings,
    Reading,
    counted,
    mean_of,
    sampled,
    total_of,
    unavailable,
)
from parbench.system.gpu_meters import (
    Mean,
    Span,
    mean_clock_mhz,
    mean_power_w,
    mean_utilization,
    now_us,
    read_clock_mhz,
    read_energy_j,
)
from parbench.system.kernel import machine_id
from parbench.system.nvml import gpu_of_torch, nvml
from parbench.system.rapl import Packages, joules_between, read_packages

STANDING_STILL = "the counter did not move: the window is shorter than the time between two of its steps"


class EnergyProbe:
    """Reads the GPUs of the rank's node that the trial uses, and the node's packages, around every window.

    All of these GPUs, whichever the rank drives: one that waits for the slowest rank uses energy until that is done.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._gpus = [_Gpu(device) for device in devices if device.type == "cuda"]
        self._packages = _Packages()
        self._windows_s: list[float] = []
        self._nvml = ExitStack()

    def start_window(self) -> None:
        """Counters count from here on. The driver stays open until the window's end: opening it takes long."""
        driver = self._nvml.enter_context(nvml()) if self._gpus else None
        for gpu in self._gpus:
            gpu.find(driver)
        self._started_s = time.monotonic()
        self._packages.start_window()
        for gpu in self._gpus:
            gpu.start_window()

    def end_window(self) -> None:
        """Counters count up to here."""
        self._windows_s.append(time.monotonic() - self._started_s)
        self._packages.end_window(self._windows_s[-1])
        for gpu in self._gpus:
            gpu.end_window()

    def keep_window(self) -> None:
        """Adds up what the window used. It comes after all that counts up to its end: reading samples takes long."""
        for gpu in self._gpus:
            gpu.keep_window(self._windows_s[-1])
        self._nvml.close()

    def read(self) -> EnergyRecord | None:
        """What all windows so far used together; None before the first."""
        if not self._windows_s:
            return None
        return EnergyRecord(
            seconds=sum(self._windows_s),
            gpus=tuple(gpu.read(self._windows_s) for gpu in self._gpus),
            packages=self._packages.read(),
        )


class _Moment(NamedTuple):
    """What a GPU says of itself at one moment; None for what it does not."""

    at_us: int
    energy_j: float | None
    clock_mhz: float | None


class _Gpu:
    """A GPU of this node. It is looked up anew for each window, by the UUID that torch knows."""

    def __init__(self, device: torch.device) -> None:
        self._torch_uuid = torch.cuda.get_device_properties(device).uuid
        self._driver: Any = None
        self._handle: Any = None
        self._uuid = f"GPU-{self._torch_uuid}"
        self._windows: list[GpuReadings] = []

    def find(self, driver: Any) -> None:
        """`driver` is None where NVML does not answer."""
        self._driver = driver
        if driver is not None:
            self._uuid, self._handle = gpu_of_torch(driver, self._torch_uuid)

    def start_window(self) -> None:
        self._start = self._look()

    def end_window(self) -> None:
        self._end = self._look()

    def keep_window(self, seconds: float) -> None:
        """Adds the window that has ended, which took `seconds`."""
        if refusal := self._refusal():
            nothing = unavailable(refusal)
            readings = GpuReadings(uuid=self._uuid, energy_j=nothing, utilization=nothing, clock_mhz=nothing)
        else:
            readings = GpuReadings(
                uuid=self._uuid,
                energy_j=self._energy(seconds),
                utilization=self._mean(mean_utilization),
                clock_mhz=self._clock(),
            )
        self._windows.append(readings)

    def read(self, windows_s: Sequence[float]) -> GpuReadings:
        """All windows together, given how long each took."""
        return GpuReadings(
            uuid=self._windows[-1].uuid,
            energy_j=total_of([window.energy_j for window in self._windows]),
            utilization=mean_of([window.utilization for window in self._windows], windows_s),
            clock_mhz=mean_of([window.clock_mhz for window in self._windows], windows_s),
        )

    def _refusal(self) -> str | None:
        """Why nothing is known of this GPU, if so."""
        if self._driver is None:
            return "NVML does not answer"
        if self._handle is None:
            return "NVML shows no such GPU"
        return "a slice of a GPU has no meters of its own" if self._uuid.startswith("MIG-") else None

    def _look(self) -> _Moment:
        if self._refusal():
            return _Moment(now_us(), None, None)
        return _Moment(now_us(), read_energy_j(self._driver, self._handle), read_clock_mhz(self._driver, self._handle))

    def _energy(self, seconds: float) -> Reading:
        """From the counter; without one, the mean of the driver's samples of power × the time."""
        before, after = self._start.energy_j, self._end.energy_j
        if before is not None and after is not None:
            return _grown(after - before)
        power = self._mean(mean_power_w)
        if power.value is None:
            return unavailable(f"it has no counter of energy, and of its power {power.reason}")
        return sampled(power.value * seconds, power.samples)

    def _clock(self) -> Reading:
        """From the driver's samples; without them, from a reading at each end."""
        clock = self._mean(mean_clock_mhz)
        before, after = self._start.clock_mhz, self._end.clock_mhz
        if clock.value is not None or before is None or after is None:
            return clock
        return sampled((before + after) / 2, 2)

    def _mean(self, mean: Callable[[Any, Any, Span], Mean]) -> Reading:
        try:
            return sampled(*mean(self._driver, self._handle, Span(self._start.at_us, self._end.at_us)))
        except MeterError as error:
            return unavailable(str(error))


class _Packages:
    """The processor packages of this node."""

    def __init__(self) -> None:
        self._windows: list[Reading] = []

    def start_window(self) -> None:
        self._start = _packages_now()

    def end_window(self, seconds: float) -> None:
        self._windows.append(self._used(seconds))

    def read(self) -> PackageReadings:
        return PackageReadings(machine=machine_id(), energy_j=total_of(self._windows))

    def _used(self, seconds: float) -> Reading:
        before, after = self._start, _packages_now()
        if isinstance(before, Reading):
            return before
        if isinstance(after, Reading):
            return after
        try:
            return _grown(joules_between(before, after, seconds))
        except MeterError as error:
            return unavailable(str(error))


def _packages_now() -> Packages | Reading:
    """The counters, or the reading that says why there are none."""
    try:
        return read_packages()
    except MeterError as error:
        return unavailable(str(error))


def _grown(joules: float) -> Reading:
    """What a counter grew by: nothing would mean that it has not been read long enough."""
    return counted(joules) if joules > 0 else unavailable(STANDING_STILL)
