"""What a machine reached when it measured itself: the content of the file that `parbench doctor --save` writes."""

from typing import Any

from pydantic import Field

from parbench.base_types import DeviceKind, Precision, Record
from parbench.records.curves import Operation

SCHEMA_VERSION = 1


class DeviceRecord(Record):
    """The devices of a machine, which are `count` equal ones on each node.

    On CPU a device is one physical core, and `memory_gib` is that of the machine, which all of them share.
    `matmul_flops` are the operations per second that matrix products reached on one device while the others had nothing
    to do, by precision, and `copy_bytes_per_s` the bytes that copies read and wrote in a second; `unavailable` says why
    there is no such figure. `power_limit_w` is the limit in watts that is enforced, of a GPU that tells.
    """

    kind: DeviceKind
    name: str | None = None
    count: int
    memory_gib: float | None = None
    power_limit_w: int | None = None
    matmul_flops: dict[Precision, float] = Field(default_factory=dict)
    copy_bytes_per_s: float | None = None
    unavailable: dict[str, str] = Field(default_factory=dict)


class PointRecord(Record):
    """An operation on `size` bytes, which is that of the whole tensor where each rank has a part.

    `seconds` is the median of `samples` times of a call, each of the slowest rank; `low_s` and `high_s` are their 10th
    and 90th percentiles. Bandwidths, in bytes per second, follow nccl-tests: `figures.curves` has the formulas.
    """

    size: int
    seconds: float
    low_s: float
    high_s: float
    samples: int
    algorithm_bandwidth: float
    bus_bandwidth: float


class FitRecord(Record):
    """A curve in two numbers: seconds = `latency_s` + bytes on the bus ÷ `bus_bandwidth` (bytes per second).

    `residual` is the root mean square of what that is wrong by, relative to the measured times.
    """

    latency_s: float
    bus_bandwidth: float
    residual: float


class CurveRecord(Record):
    """The times of an operation between so many ranks, one a device, by size.

    `unavailable` says why there are none, `left_out` which sizes there are none of, and why.
    """

    operation: Operation
    ranks: int
    points: tuple[PointRecord, ...] = ()
    fit: FitRecord | None = None
    unavailable: str | None = None
    left_out: str | None = None


class MachineRecord(Record):
    """A machine as it measured itself. `backend` is what carries messages, `measured_at` UTC in ISO 8601.

    `environment` and its digest are those of the run records: where the digest is the same, so is the speed to be
    expected.
    """

    schema_version: int = SCHEMA_VERSION
    measured_at: str
    parbench: str
    backend: str
    nodes: int = 1
    device: DeviceRecord
    curves: tuple[CurveRecord, ...] = ()
    environment_digest: str
    environment: dict[str, Any] = Field(default_factory=dict)

    def curve(self, operation: Operation, ranks: int) -> CurveRecord | None:
        """The curve of an operation between so many ranks; None where it was not measured."""
        found = (each for each in self.curves if (each.operation, each.ranks) == (operation, ranks) and each.points)
        return next(found, None)
