"""What else ran on a rank's cores and GPUs during its windows. Counters are read before and after a window only."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from parbench.records.trial import GpuSurroundings, SurroundingsRecord
from parbench.system.cpus import allowed_cpus
from parbench.system.gpu_users import users_of
from parbench.system.kernel import CPUS, read
from parbench.system.mps import is_client
from parbench.system.nvml import gpu_of_torch, nvml
from parbench.system.throttling import read_throttled_seconds


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
        self._gpus = tuple(_Gpu(device) for device in self._devices)

    def start_window(self) -> None:
        """Counters count from here on."""
        with nvml() as driver:
            for gpu in self._gpus if driver else ():
                gpu.start_window(driver)
        self._start = self._read_counters()

    def end_window(self) -> None:
        """Counters count up to here."""
        growth = (now - before for before, now in zip(self._start, self._read_counters(), strict=True))
        self._sum = _Moment._make(total + more for total, more in zip(self._sum, growth, strict=True))
        with nvml() as driver:
            for gpu in self._gpus if driver else ():
                gpu.end_window(driver)

    def read(self) -> SurroundingsRecord:
        """The sums so far."""
        total = self._sum
        return SurroundingsRecord(
            window_s=total.at,
            busy_s=total.busy,
            stolen_s=total.stolen,
            own_s=total.own,
            throttled=int(total.throttled),
            gpus=tuple(gpu.read() for gpu in self._gpus),
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


class _Gpu:
    """A GPU that this rank uses, as NVML sees it."""

    def __init__(self, device: torch.device) -> None:
        self._torch_uuid = torch.cuda.get_device_properties(device).uuid
        self._record = GpuSurroundings(uuid=f"GPU-{self._torch_uuid}", mps=is_client(device.index))
        self._start: dict[str, float] = {}

    def start_window(self, driver: Any) -> None:
        uuid, handle = gpu_of_torch(driver, self._torch_uuid)
        self._record = self._record.model_copy(update={"uuid": uuid})
        self._start = read_throttled_seconds(driver, handle)

    def end_window(self, driver: Any) -> None:
        _, handle = gpu_of_torch(driver, self._torch_uuid)
        users = users_of(driver, handle)
        now, before = read_throttled_seconds(driver, handle), self._record.throttled_s
        throttled_s = {
            cause: before.get(cause, 0.0) + now[cause] - start for cause, start in self._start.items() if cause in now
        }
        processes = None if users is None else len(users.compute)
        self._record = self._record.model_copy(update={"processes": processes, "throttled_s": throttled_s})

    def read(self) -> GpuSurroundings:
        return self._record
