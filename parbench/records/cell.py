"""A cell of a run's plan."""

from parbench.base_types import DeviceKind, Phase, Record, Scaling


class ProofRecord(Record):
    """A way to prove a cell: with this global batch (sequences), by the trials of these two keys."""

    global_batch: int
    key: str
    reference: str


class CompanionRecord(Record):
    """What is launched to explain cells: the key of its trials, and the global batch of each model (sequences)."""

    key: str
    global_batch: int


class CompanionsRecord(Record):
    """What explains how much faster than one device a cell is.

    `alone` is the reference on one device with the batch that a device of the cell computes at once; `together` are as
    many independent copies of that as the cell has devices, at the same time.
    """

    alone: CompanionRecord
    together: CompanionRecord


class CellRecord(Record):
    """A cell of the run's plan: one row of the comparison, whether it can be measured on this machine or not.

    `key` is the key of its trials, `reference` that of the trial whose losses they must reproduce. `proofs` are the
    ways to prove it, the best first: a smaller batch is taken where a larger one does not fit into memory. It is empty
    where the timed steps prove enough, and None in runs of versions without proofs. `data_shards` is the number of
    parts into which its layout cuts a global batch, and `traffic_varies` where the data decides how much its ranks
    exchange. `companions` are what explains its speed, whether it is launched or not; None where nothing does.
    `price_per_device_hour` is what one of its devices costs, in `currency`; None where the scenario has no price.
    `reason` says why a cell is skipped; None where it is not.
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
    traffic_varies: bool = False
    proofs: tuple[ProofRecord, ...] | None = None
    companions: CompanionsRecord | None = None
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

    @property
    def timed_keys(self) -> tuple[str, ...]:
        """The keys of its timed trials, and of those that explain it."""
        explaining = (self.companions.alone, self.companions.together) if self.companions else ()
        return self.key, *(companion.key for companion in explaining)

    @property
    def is_spread(self) -> bool:
        """Whether several devices work on one model: ideally it is as many times as fast as one of them."""
        return self.devices > 1 and self.models == 1
