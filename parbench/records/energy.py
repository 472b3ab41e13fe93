"""What GPUs and processors used while a rank measured; each value says how it came about."""

from collections.abc import Sequence
from typing import Literal

from parbench.base_types import Record

Source = Literal["counter", "sampled", "unavailable"]
"""How a value came about: a device counted it between two readings, it is the mean of samples, or there is none."""


class Reading(Record):
    """A value and its source: of a sampled one the number of `samples`, of an unavailable one the `reason`."""

    value: float | None = None
    source: Source = "unavailable"
    samples: int = 0
    reason: str = ""


class GpuReadings(Record):
    """A GPU: the energy it used (joules), the mean share of time in which a kernel ran (0 to 1), and the mean clock of
    its multiprocessors (MHz).
    """

    uuid: str
    energy_j: Reading = Reading()
    utilization: Reading = Reading()
    clock_mhz: Reading = Reading()


class PackageReadings(Record):
    """The processor packages of a machine: the energy that all of them used together (joules), whoever used them.

    `machine` is equal for nodes that are parts of one machine.
    """

    machine: str
    energy_j: Reading = Reading()


class EnergyRecord(Record):
    """What a rank read around its windows: all GPUs of its node that the trial uses, and the node's packages.

    `seconds` is the time from the readings before a window to those after it, of all windows together.
    """

    seconds: float
    gpus: tuple[GpuReadings, ...] = ()
    packages: PackageReadings | None = None


def counted(value: float) -> Reading:
    """What a counter grew by."""
    return Reading(value=value, source="counter")


def sampled(value: float, samples: int) -> Reading:
    """The mean of so many samples."""
    return Reading(value=value, source="sampled", samples=samples)


def unavailable(reason: str) -> Reading:
    """No value, and why."""
    return Reading(reason=reason)


def total_of(readings: Sequence[Reading]) -> Reading:
    """The sum, which is unavailable as soon as a part is, and sampled as soon as a part is."""
    return _joined(readings, sum(reading.value or 0.0 for reading in readings))


def mean_of(readings: Sequence[Reading], weights: Sequence[float]) -> Reading:
    """The mean by weight, such as by the length of each window; its source is as for the sum."""
    weighted = zip(readings, weights, strict=True)
    total = sum((reading.value or 0.0) * weight for reading, weight in weighted)
    return _joined(readings, total / sum(weights) if sum(weights) else 0.0)


def _joined(readings: Sequence[Reading], value: float) -> Reading:
    missing = next((reading for reading in readings if reading.value is None), None)
    if missing or not readings:
        return missing or unavailable("there is no device to read")
    if all(reading.source == "counter" for reading in readings):
        return counted(value)
    return sampled(value, sum(reading.samples for reading in readings))
