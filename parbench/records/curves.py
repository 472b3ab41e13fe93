"""What the ranks of one launch measure of their machine, and what each of them found."""

from typing import Literal

from pydantic import Field

from parbench.base_types import DeviceKind, Precision, Record

CURVES_FILE = "curves.json"
"""The assignment in the folder of such a launch."""

Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p"]
"""What all ranks do together. In `p2p` each of them sends to the next one and receives from the one before."""


class CurvesAssignment(Record):
    """What the ranks of one launch measure: the content of `curves.json` in their folder.

    `cores` are the logical CPUs of each rank; it is empty where ranks are not pinned. A single rank measures matrix
    products in the precisions of `matmul`, and copies. Several exchange tensors of `sizes` bytes, the smallest first:
    each size for each operation in `visits` visits, as far as all visits fit into `budget_s` seconds.
    """

    device_kind: DeviceKind
    threads: int
    cores: tuple[tuple[int, ...], ...]
    matmul: tuple[Precision, ...]
    sizes: tuple[int, ...]
    visits: int
    seed: int
    budget_s: float
    deadline_s: float


class SampleRecord(Record):
    """An operation on `size` bytes, as nccl-tests counts them: of the whole tensor, where ranks have parts of it.

    `seconds` has for each visit the mean time of a call.
    """

    operation: Operation
    size: int
    seconds: tuple[float, ...]


class CurvesRecord(Record):
    """What one rank found.

    `matmul_flops` are the operations per second of matrix products by precision, `copy_bytes_per_s` the bytes that
    copies read and write in a second. `unavailable` says of operations and precisions why there are none, `too_long`
    which size of an operation was the first that did not fit into the budget.
    """

    matmul_flops: dict[Precision, float] = Field(default_factory=dict)
    copy_bytes_per_s: float | None = None
    samples: tuple[SampleRecord, ...] = ()
    unavailable: dict[str, str] = Field(default_factory=dict)
    too_long: dict[Operation, int] = Field(default_factory=dict)
