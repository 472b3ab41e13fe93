"""The assignment of a trial: what its ranks compute and measure."""

from typing import Any, Literal

from parbench.base_types import CompileCache, DeviceKind, MallocPolicy, Precision, Record
from parbench.records.corpus import Corpus

Purpose = Literal["measure", "companion", "reference", "proof"]
"""Why a trial is launched. `measure` times a cell, `companion` what explains cells. The others take untimed steps to
compare losses: a `reference` with the reference strategy on one device, a `proof` with the cell's own strategy."""


TIMED: tuple[Purpose, ...] = ("measure", "companion")
"""The purposes of trials whose steps are timed, round by round."""


PARITY_STEPS = 5
"""How many steps a proof takes, and the least number of steps before a window."""


class Twin(Record):
    """A variation of the reference. Its losses show how large a deviation is when nothing, or something, is wrong.

    `split` computes the same batch in `parts` parts, so that it differs by rounding alone. The others are wrong on
    purpose: `apart` are `parts` models that each learn from their own shard and are never synchronised, `half` learns
    from half of every batch, and `idle` stops learning after the steps of a proof.
    """

    kind: Literal["split", "apart", "half", "idle"]
    parts: int = 2


class Assignment(Record):
    """What the ranks of one trial compute and measure: the content of `cell.json` in the trial's folder.

    `cores` are the logical CPUs of each CPU device of this host, in order, and `rank_cores` those of each of its ranks
    that drive GPUs; either is empty where they are not pinned. Where devices share the GPUs of a node, because there
    are more devices, `gpus` is the number of those; otherwise it is None. `mps`: ranks that share a GPU go through the
    Multi-Process Service, which the launcher starts. Relative paths in `workload` start at `folder`, which is the
    scenario's.

    Of a timed trial, the losses of the first `verify_steps` steps are recorded. An untimed one takes `steps` steps, the
    first `quiet_steps` of them at a learning rate of zero; it validates after each number of steps in `validate_at`,
    computes the `twins`, and measures the device's matrix products in precision `matmul`. `malloc` is what every rank
    of the campaign does with freed memory, `compile_cache` what torch.compile finds there. With `account`, further
    steps are watched after the window, with `account_memory` the memory of some more, and with `trace` all their events
    are kept as well.
    """

    purpose: Purpose
    cell: str
    key: str
    round: int
    repeat: int = 0
    workload: dict[str, Any]
    folder: str = "."
    strategy: str
    options: dict[str, Any]
    device_kind: DeviceKind
    devices: int
    nodes: int = 1
    threads: int
    cores: tuple[tuple[int, ...], ...]
    mps: bool = False
    rank_cores: tuple[tuple[int, ...], ...] = ()
    gpus: int | None = None
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
    malloc: MallocPolicy = "default"
    account: bool = False
    account_memory: bool = False
    trace: bool = False
    compile_cache: CompileCache = "kept"
