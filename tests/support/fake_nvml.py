"""NVML that is made up: a test sets what each GPU counts, and what the driver has kept of it."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass(eq=False)
class FakeGpu:
    """A GPU by its name. What is None, or missing among the samples, it does not support.

    `samples` are moments (microseconds) and values by their kind, in NVML's units: milliwatts, per cent, MHz.
    """

    name: str
    millijoules: int | None = None
    clock_mhz: int | None = None
    samples: dict[int, Sequence[tuple[int, int]]] = field(default_factory=dict)


class FakeNvml:
    """The driver: the functions and constants of NVML that meters use, over these GPUs."""

    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM
    NVML_TOTAL_POWER_SAMPLES = pynvml.NVML_TOTAL_POWER_SAMPLES
    NVML_GPU_UTILIZATION_SAMPLES = pynvml.NVML_GPU_UTILIZATION_SAMPLES
    NVML_PROCESSOR_CLK_SAMPLES = pynvml.NVML_PROCESSOR_CLK_SAMPLES

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = {gpu.name: gpu for gpu in gpus}

    def opened(self) -> Any:
        """What stands for `parbench.system.nvml.nvml()`."""
        return nullcontext(self)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:  # noqa: N802 - NVML's name
        return _supported(self.gpus.get(uuid))

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:  # noqa: N802
        return _supported(gpu.millijoules)

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, kind: int) -> int:  # noqa: N802
        assert kind == self.NVML_CLOCK_SM
        return _supported(gpu.clock_mhz)

    def nvmlDeviceGetSamples(self, gpu: FakeGpu, kind: int, since_us: int) -> tuple[int, list[Any]]:  # noqa: N802
        kept = _supported(gpu.samples.get(kind))
        samples = [SimpleNamespace(timeStamp=at, sampleValue=SimpleNamespace(uiVal=value)) for at, value in kept]
        newer = [each for each in samples if not since_us or each.timeStamp > since_us]
        return pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, newer


def _supported(value: Any) -> Any:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value
