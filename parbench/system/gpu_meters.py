"""What NVIDIA's driver counts and samples of a GPU by itself, so that nothing has to run beside the steps.

Energy is a counter, on GPUs since Volta. Utilisation, clock and power are samples in buffers of the driver, which hold
the latest ones only (NVML API Reference Guide, nvmlDeviceGetSamples). None of them is of a slice of a GPU (MIG).
"""

import time
from typing import Any, NamedTuple

from parbench.errors import MeterError
from parbench.system.nvml import answer

MILLI = 1e-3


class Span(NamedTuple):
    """A stretch of time in microseconds on the wall clock, with which the driver stamps its samples."""

    start_us: int
    end_us: int


class Mean(NamedTuple):
    """The mean of samples, and how many they were."""

    value: float
    samples: int


def now_us() -> int:
    """Microseconds on the wall clock."""
    return time.time_ns() // 1000


def read_energy_j(driver: Any, gpu: Any) -> float | None:
    """Joules since the driver was loaded, in steps of some tens of milliseconds; None where the GPU counts none."""
    millijoules = answer(driver.nvmlDeviceGetTotalEnergyConsumption, gpu)
    return None if millijoules is None else millijoules * MILLI


def read_clock_mhz(driver: Any, gpu: Any) -> float | None:
    """The clock of the multiprocessors at this moment, in MHz; None where the GPU does not tell."""
    clock = answer(driver.nvmlDeviceGetClockInfo, gpu, driver.NVML_CLOCK_SM)
    return None if clock is None else float(clock)


def mean_power_w(driver: Any, gpu: Any, span: Span) -> Mean:
    """The mean of the driver's samples of power, in watts. Raises `MeterError` unless they cover the span."""
    milliwatts, samples = _mean_within(driver, gpu, driver.NVML_TOTAL_POWER_SAMPLES, span)
    return Mean(milliwatts * MILLI, samples)


def mean_utilization(driver: Any, gpu: Any, span: Span) -> Mean:
    """The share of time in which a kernel ran, from 0 to 1. Raises `MeterError` unless samples cover the span."""
    percent, samples = _mean_within(driver, gpu, driver.NVML_GPU_UTILIZATION_SAMPLES, span)
    return Mean(percent / 100, samples)


def mean_clock_mhz(driver: Any, gpu: Any, span: Span) -> Mean:
    """The mean clock of the multiprocessors over time. Raises `MeterError` unless samples cover the span.

    The driver takes a sample when the clock changes, so each holds until the next one.
    """
    samples = _samples(driver, gpu, driver.NVML_PROCESSOR_CLK_SAMPLES, span)
    starts = [span.start_us, *(at for at, _ in samples[1:])]
    ends = [*starts[1:], span.end_us]
    total = sum(clock * (end - start) for (_, clock), start, end in zip(samples, starts, ends, strict=True))
    return Mean(total / (span.end_us - span.start_us), len(samples))


def _mean_within(driver: Any, gpu: Any, kind: int, span: Span) -> Mean:
    """The mean of the samples within the span, each of which is of the time since the one before it."""
    values = [value for _, value in _samples(driver, gpu, kind, span)[1:]]
    if not values:
        raise MeterError("the window is shorter than the time between two of the driver's samples")
    return Mean(sum(values) / len(values), len(values))


def _samples(driver: Any, gpu: Any, kind: int, span: Span) -> list[tuple[int, int]]:
    """The moments and values of the samples from the last one before the span to the end of it.

    Raises `MeterError` where the driver keeps none, or has dropped some of the span's already.
    """
    kept = answer(driver.nvmlDeviceGetSamples, gpu, kind, 0)
    if kept is None:
        raise MeterError("the driver keeps no samples of it")
    if span.end_us <= span.start_us:
        raise MeterError("the wall clock, by which the driver stamps its samples, was set back in the window")
    moments = sorted((sample.timeStamp, sample.sampleValue.uiVal) for sample in kept[1] if sample.timeStamp)
    before = [each for each in moments if each[0] <= span.start_us]
    if not before:
        raise MeterError("the driver's samples do not reach back to the start of the window")
    return [before[-1], *(each for each in moments if span.start_us < each[0] <= span.end_us)]
