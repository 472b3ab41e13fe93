"""A cell as a run planned it."""

from parbench.base_types import DeviceKind, Phase, Record, Scaling


class ProofRecord(Record):
    """A cell's proof on a global batch of so many sequences: the keys of its trial and of the reference's."""

    global_batch: int
    key: str
    reference: str


class CellRecord(Record):
    """A cell as the run planned it: one row of the comparison, whether or not it can be measured here.

    `key` finds its trials, `reference` the trial whose losses they must reproduce. `proofs` are the ways to prove it,
    the best first: a smaller batch serves where a larger one does not fit. It is empty where the timed steps prove
    enough, and None in runs from before there were proofs. `data_shards` are those of its layout; `reason` says why it
    is skipped.
    """

    id: str
    key: str
    reference: str
    workload: str
    family: str
    strategy: str
    label: str
    is_reference: bool
    exact: bool
    scaling: Scaling
    device_kind: DeviceKind
    devices: int
    nodes: int = 1
    models: int
    global_batch: int
    seq_len: int
    precision: str
    phase: Phase = "train"
    new_tokens: int | None = None
    flops_per_token: float | None = None
    ideal_bubble: float | None = None
    layout: str = ""
    data_shards: int = 1
    proofs: tuple[ProofRecord, ...] | None = None
    emulated: bool = False
    oversubscribed: bool = False
    reason: str | None = None
