"""Peak memory of a rank: resident growth on CPU, torch's and the device's own figures on CUDA."""

import re
import time
from pathlib import Path
from typing import NamedTuple

import torch

from parbench.records.trial import DeviceMemory, MemoryRecord
from parbench.system.nvml import answer, gpu_of_torch, nvml

_SELF = Path("/proc/self")


class Resident(NamedTuple):
    """Resident memory of this process in bytes: its peak, and what files and shared memory take of it now.

    The peak counts anonymous memory, pages of files (code, mapped data) and shared memory alike (proc(5), VmHWM).
    """

    peak: int
    files: int
    shared: int


class MemoryProbe:
    """Reads the peaks since the object was made, which happens before the model is built."""

    def __init__(self, devices: tuple[torch.device, ...]) -> None:
        self._devices = [device for device in devices if device.type == "cuda"]
        self._windows_us: list[tuple[int, int]] = []
        for device in self._devices:
            torch.cuda.reset_peak_memory_stats(device)
        self._start = _reset_peak()

    def start_window(self) -> None:
        """GPU utilisation counts from here on."""
        self._window_started_us = _now_us()

    def end_window(self) -> None:
        """GPU utilisation counts up to here."""
        self._windows_us.append((self._window_started_us, _now_us()))

    def read(self) -> MemoryRecord:
        """The peaks, in bytes; None where this system does not report them."""
        devices = tuple(self._read_device(device) for device in self._devices)
        start, end = self._start, _read_resident()
        if start is None or end is None:
            return MemoryRecord(devices=devices)
        return MemoryRecord(
            resident_growth=max(0, end.peak - start.peak),
            file_growth=end.files - start.files,
            shared_growth=end.shared - start.shared,
            devices=devices,
        )

    def _read_device(self, device: torch.device) -> DeviceMemory:
        used, utilization = _read_nvml(device, self._windows_us)
        return DeviceMemory(
            allocated_peak=torch.cuda.max_memory_allocated(device),
            reserved_peak=torch.cuda.max_memory_reserved(device),
            device_used=used,
            utilization=utilization,
        )


def read_anonymous() -> int | None:
    """Bytes of anonymous memory of this process that are resident now (proc(5), RssAnon); None where it is not told."""
    sizes = _read_status("RssAnon")
    return sizes[0] if sizes else None


def _now_us() -> int:
    """Microseconds on the wall clock, with which NVML stamps its samples."""
    return time.time_ns() // 1000


def _reset_peak() -> Resident | None:
    """Resets the kernel's peak of resident memory; returns what is resident now. None where it cannot be reset.

    Writing 5 to clear_refs resets VmHWM to the present resident size (proc(5)). The peak of getrusage is of no use: a
    process inherits it from its parent.
    """
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return None
    return _read_resident()


def _read_resident() -> Resident | None:
    sizes = _read_status("VmHWM", "RssFile", "RssShmem")
    return Resident(*sizes) if sizes else None


def _read_status(*names: str) -> tuple[int, ...] | None:
    """These sizes of this process in bytes, by their names in proc(5); None where the system does not tell them all."""
    try:
        sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (_SELF / "status").read_text(), re.MULTILINE))
        return tuple(int(sizes[name]) * 1024 for name in names)
    except (OSError, KeyError):
        return None


def _read_nvml(device: torch.device, windows_us: list[tuple[int, int]]) -> tuple[int | None, float | None]:
    """From NVML: memory in use on the whole device (bytes), and its mean utilisation in the windows (0 to 1).

    The driver samples utilisation and keeps the samples, so nothing has to run beside the steps.
    """
    with nvml() as driver:
        if driver is None:
            return None, None
        _, handle = gpu_of_torch(driver, torch.cuda.get_device_properties(device).uuid)
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
