"""What else ran on a rank's cores and GPUs during its windows. Counters are read before and after a window only."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from parbench.records.trial import GpuSurroundings, SurroundingsRecord
from parbench.system.cpus import allowed_cpus
from parbench.system.kernel import CPUS, read
from parbench.system.nvml import answer, gpu_handle, nvml

_THROTTLE_REASONS = {
    "heat": ("nvmlClocksEventReasonSwThermalSlowdown", "nvmlClocksEventReasonHwThermalSlowdown"),
    "power brake": ("nvmlClocksEventReasonHwPowerBrakeSlowdown",),
    "hardware": ("nvmlClocksEventReasonHwSlowdown",),
}


class _Moment(NamedTuple):
    """Clocks and counters, which only grow: seconds, and for `throttled` events."""

    at: float = 0.0
    busy: float = 0.0
    stolen: float = 0.0
    own: float = 0.0
    throttled: int = 0


class Surroundings:
    """Sums over the windows of a rank, for its cores; a rank that is not pinned watches all cores that it may use."""

    def __init__(self, cores: tuple[int, ...], devices: tuple[torch.device, ...]) -> None:
        self._cores = cores or tuple(allowed_cpus())
        self._devices = [device for device in devices if device.type == "cuda"]
        self._sum = _Moment()
        self._gpus: tuple[GpuSurroundings, ...] = ()

    def start_window(self) -> None:
        """Counters count from here on."""
        self._start = self._read_counters()

    def end_window(self) -> None:
        """Counters count up to here."""
        growth = (now - before for before, now in zip(self._start, self._read_counters(), strict=True))
        self._sum = _Moment._make(total + more for total, more in zip(self._sum, growth, strict=True))
        with nvml() as driver:
            if driver is not None:
                self._gpus = tuple(_read_gpu(driver, device) for device in self._devices)

    def read(self) -> SurroundingsRecord:
        """The sums so far."""
        total = self._sum
        return SurroundingsRecord(
            window_s=total.at,
            busy_s=total.busy,
            stolen_s=total.stolen,
            own_s=total.own,
            throttled=int(total.throttled),
            gpus=self._gpus,
        )

    def _read_counters(self) -> _Moment:
        machine = psutil.cpu_times(percpu=True)
        cores = [machine[core] for core in self._cores if core < len(machine)]
        return _Moment(
            at=time.monotonic(),
            busy=sum(each.user + each.nice + each.system + each.irq + each.softirq for each in cores),
            stolen=sum(each.steal for each in cores),
            own=time.process_time(),
            throttled=sum(_read_throttle_count(core) for core in self._cores),
        )


def _read_throttle_count(core: int) -> int:
    text = read(Path(CPUS) / f"cpu{core}/thermal_throttle/core_throttle_count")
    return int(text) if text and text.isdigit() else 0


def _read_gpu(driver: Any, device: torch.device) -> GpuSurroundings:
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    handle = gpu_handle(driver, uuid)
    processes = None if handle is None else answer(driver.nvmlDeviceGetComputeRunningProcesses, handle)
    reasons = (None if handle is None else answer(driver.nvmlDeviceGetCurrentClocksEventReasons, handle)) or 0
    causes = (
        name for name, flags in _THROTTLE_REASONS.items() if any(reasons & getattr(driver, flag, 0) for flag in flags)
    )
    # The power cap is not among the causes: a GPU under full load is always at it.
    return GpuSurroundings(uuid=uuid, processes=None if processes is None else len(processes), held_down=tuple(causes))
