"""A cell of a run's plan."""

from parbench.base_types import DeviceKind, Phase, Record, Scaling


class ProofRecord(Record):
    """A way to prove a cell: with this global batch (sequences), by the trials of these two keys."""

    global_batch: int
    key: str
    reference: str


class CellRecord(Record):
    """A cell of the run's plan: one row of the comparison, whether it can be measured on this machine or not.

    `key` is the key of its trials, `reference` that of the trial whose losses they must reproduce. `proofs` are the
    ways to prove it, the best first: a smaller batch is taken where a larger one does not fit into memory. It is empty
    where the timed steps prove enough, and None in runs of versions without proofs. `data_shards` is the number of
    parts into which its layout cuts a global batch. `price_per_device_hour` is what one of its devices costs, in
    `currency`; None where the scenario has no price. `reason` says why a cell is skipped; None where it is not.
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
    price_per_device_hour: float | None = None
    currency: str = ""
    reason: str | None = None

    @property
    def can_be_base(self) -> bool:
        """Whether ratios can be over it: it is the reference on one device."""
        return self.is_reference and self.devices == 1

    @property
    def base_group(self) -> tuple[str, str]:
        """Workload and scaling: cells that share both share a base."""
        return self.workload, self.scaling
