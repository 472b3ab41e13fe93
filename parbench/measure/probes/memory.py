"""Peak memory of a rank: resident growth on CPU, torch's and the device's own figures on CUDA."""

import re
import time
from pathlib import Path

import torch

from parbench.records.trial import DeviceMemory, MemoryRecord
from parbench.system.nvml import answer, gpu_handle, nvml

_SELF = Path("/proc/self")


class MemoryProbe:
    """Starts counting when it is made, before the model is built."""

    def __init__(self, devices: tuple[torch.device, ...]) -> None:
        self._devices = [device for device in devices if device.type == "cuda"]
        self._windows_us: list[tuple[int, int]] = []
        for device in self._devices:
            torch.cuda.reset_peak_memory_stats(device)
        self._baseline = _restart_peak()

    def window_starts(self) -> None:
        """From here on utilisation counts."""
        self._window_started_us = _now_us()

    def window_ends(self) -> None:
        """Up to here it did."""
        self._windows_us.append((self._window_started_us, _now_us()))

    def read(self) -> MemoryRecord:
        """The peaks since the start, in bytes; None for what this system does not tell."""
        peak = _resident_peak()
        growth = None if peak is None or self._baseline is None else max(0, peak - self._baseline)
        return MemoryRecord(resident_growth=growth, devices=tuple(self._device(device) for device in self._devices))

    def _device(self, device: torch.device) -> DeviceMemory:
        used, utilization = _device_level(device, self._windows_us)
        return DeviceMemory(
            allocated_peak=torch.cuda.max_memory_allocated(device),
            reserved_peak=torch.cuda.max_memory_reserved(device),
            device_used=used,
            utilization=utilization,
        )


def _now_us() -> int:
    """NVML stamps its samples with the wall clock."""
    return time.time_ns() // 1000


def _restart_peak() -> int | None:
    """Makes the kernel forget the peak so far; what is resident now, in bytes.

    Writing 5 to clear_refs resets VmHWM to the present resident size (proc(5)). The peak that getrusage reports cannot
    be used: it is inherited from the parent process.
    """
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return None
    return _resident_peak()


def _resident_peak() -> int | None:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", (_SELF / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _device_level(device: torch.device, windows_us: list[tuple[int, int]]) -> tuple[int | None, float | None]:
    """Memory in use on the whole device (bytes) and its mean utilisation in the windows (0 to 1), from NVML.

    The driver samples utilisation by itself and keeps the samples, so nothing has to run beside the steps.
    """
    with nvml() as driver:
        if driver is None:
            return None, None
        handle = gpu_handle(driver, f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        if handle is None:
            return None, None
        memory = answer(driver.nvmlDeviceGetMemoryInfo, handle)
        samples = answer(driver.nvmlDeviceGetSamples, handle, driver.NVML_GPU_UTILIZATION_SAMPLES, 0)
    busy = [
        sample.sampleValue.uiVal / 100
        for sample in (samples[1] if samples else ())
        if any(start <= sample.timeStamp <= end for start, end in windows_us)
    ]
    return int(memory.used) if memory else None, sum(busy) / len(busy) if busy else None
