"""What else ran on a rank's cores and GPUs while it measured: read before and after a window, never within."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from parbench.records.trial import GpuSurroundings, SurroundingsRecord
from parbench.system.cpus import allowed_cpus
from parbench.system.kernel import CPUS, read
from parbench.system.nvml import answer, gpu_handle, nvml

_HELD_DOWN = {
    "heat": ("nvmlClocksEventReasonSwThermalSlowdown", "nvmlClocksEventReasonHwThermalSlowdown"),
    "power brake": ("nvmlClocksEventReasonHwPowerBrakeSlowdown",),
    "hardware": ("nvmlClocksEventReasonHwSlowdown",),
}


class _Moment(NamedTuple):
    """Clocks and counters that only grow, in seconds; `throttled` counts events."""

    at: float = 0.0
    busy: float = 0.0
    stolen: float = 0.0
    own: float = 0.0
    throttled: int = 0


class Surroundings:
    """Adds up over the windows of a rank. A rank that is not pinned watches all cores that it may use."""

    def __init__(self, cores: tuple[int, ...], devices: tuple[torch.device, ...]) -> None:
        self._cores = cores or tuple(allowed_cpus())
        self._devices = [device for device in devices if device.type == "cuda"]
        self._sum = _Moment()
        self._gpus: tuple[GpuSurroundings, ...] = ()

    def window_starts(self) -> None:
        """From here on others count."""
        self._start = self._moment()

    def window_ends(self) -> None:
        """Up to here they did."""
        grown = (now - before for before, now in zip(self._start, self._moment(), strict=True))
        self._sum = _Moment._make(known + more for known, more in zip(self._sum, grown, strict=True))
        with nvml() as driver:
            if driver is not None:
                self._gpus = tuple(_gpu(driver, device) for device in self._devices)

    def read(self) -> SurroundingsRecord:
        """The sums so far."""
        found = self._sum
        return SurroundingsRecord(
            window_s=found.at,
            busy_s=found.busy,
            stolen_s=found.stolen,
            own_s=found.own,
            throttled=int(found.throttled),
            gpus=self._gpus,
        )

    def _moment(self) -> _Moment:
        every = psutil.cpu_times(percpu=True)
        mine = [every[core] for core in self._cores if core < len(every)]
        return _Moment(
            at=time.monotonic(),
            busy=sum(each.user + each.nice + each.system + each.irq + each.softirq for each in mine),
            stolen=sum(each.steal for each in mine),
            own=time.process_time(),
            throttled=sum(_times_throttled(core) for core in self._cores),
        )


def _times_throttled(core: int) -> int:
    said = read(Path(CPUS) / f"cpu{core}/thermal_throttle/core_throttle_count")
    return int(said) if said and said.isdigit() else 0


def _gpu(driver: Any, device: torch.device) -> GpuSurroundings:
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    handle = gpu_handle(driver, uuid)
    processes = None if handle is None else answer(driver.nvmlDeviceGetComputeRunningProcesses, handle)
    reasons = (None if handle is None else answer(driver.nvmlDeviceGetCurrentClocksEventReasons, handle)) or 0
    held = (name for name, flags in _HELD_DOWN.items() if any(reasons & getattr(driver, flag, 0) for flag in flags))
    # The power cap is left out: a GPU at full load is there all the time.
    return GpuSurroundings(uuid=uuid, processes=None if processes is None else len(processes), held_down=tuple(held))
