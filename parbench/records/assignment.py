"""What the ranks of a trial are told to do."""

from typing import Any, Literal

from parbench.base_types import DeviceKind, Precision, Record
from parbench.records.corpus import Corpus

Purpose = Literal["measure", "reference", "proof"]
"""A `reference` is computed by the reference strategy on one device, a `proof` by the cell itself, untimed like it."""


PARITY_STEPS = 5
"""How many steps a proof takes, and at least how many come before a window."""


class Twin(Record):
    """A variation of the reference whose losses say what the comparison with it can tell.

    `split` computes the same in `parts` parts, each rounded on its own: how far rounding alone leads away. The others
    are wrong on purpose: `apart` are `parts` models that each learn from their own shard and are never synchronised,
    `half` learns from half of every batch, and `idle` stops to learn after the steps of a proof.
    """

    kind: Literal["split", "apart", "half", "idle"]
    parts: int = 2


class Assignment(Record):
    """What the ranks of one trial are told to do: the whole content of a trial folder's `cell.json`.

    `cores` are the logical CPUs of each device of this host, in order; empty where ranks are not pinned. `folder` is
    the scenario's, where paths in the workload start.

    What is not timed takes `steps` steps, the first `quiet_steps` of them at a learning rate of zero, validates after
    as many as `validate_at` names, is followed by `twins`, and measures the device's matrix products in precision
    `matmul`. Of a timed trial, the losses of the first `verify_steps` steps are recorded.
    """

    purpose: Purpose
    cell: str
    key: str
    round: int
    workload: dict[str, Any]
    folder: str = "."
    strategy: str
    options: dict[str, Any]
    device_kind: DeviceKind
    devices: int
    nodes: int = 1
    threads: int
    cores: tuple[tuple[int, ...], ...]
    corpus: Corpus
    seed: int
    warmup: int | Literal["auto"]
    window_s: float
    validation_batches: int
    deadline_s: float
    verify_steps: int = PARITY_STEPS
    steps: int = PARITY_STEPS
    quiet_steps: int = 0
    validate_at: tuple[int, ...] = ()
    twins: tuple[Twin, ...] = ()
    matmul: Precision | None = None
