"""The versioned records: what a rank is told to do, what it measured, and the trial made of all ranks."""

from typing import Any, Literal

from pydantic import Field

from parbench.base_types import Record
from parbench.devices import DeviceKind
from parbench.scenario import Phase, Precision, Scaling
from parbench.workloads.corpus import Corpus

SCHEMA_VERSION = 1

Status = Literal["ok", "skipped", "failed", "killed", "out_of_memory", "timed_out"]
Stage = Literal["start", "join", "setup", "steps", "warm-up", "window", "validation", "traffic", "close", "done"]
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


class TwinRecord(Record):
    """The losses of a twin on the global batch, step by step (nats per token)."""

    twin: Twin
    losses: tuple[float, ...]


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


class ValidationRecord(Record):
    """The mean validation loss (nats per token) after so many steps."""

    steps: int
    loss: float


class GenerationRecord(Record):
    """What a rank generated, and when. Empty where the rank does not have the tokens.

    `sequences` are the digests of the new tokens of each sequence of the steps that are verified; of each step of the
    window, `first_token_s` is the time to its first token, and `token_s` are the times from each token to the next
    (seconds).
    """

    sequences: tuple[str, ...] = ()
    first_token_s: tuple[float, ...] = ()
    token_s: tuple[float, ...] = ()


class JobRecord(Record):
    """One model on one rank. Times in seconds; losses in nats per token, of this rank's shard of the batch.

    `losses` are those of the steps that are verified, warm-up first; `validation_loss` is the mean over the validation
    batches after the window, and `validations` are the same of what is not timed; all are empty where the rank computes
    no loss. `shared_loss` is that of a batch which every rank evaluates after untimed steps, whatever its shard.
    `steady` says whether warm-up ended because step times were. One step in a `cycle` may do more than the others.
    `compile_s` is what torch.compile took, all before the
    window; `started_s` and `stopped_s` are the window's ends on the host's monotonic clock; `compute_s` is how much of
    the window the rank computed, where its strategy knows; `stacked` is how many models took these steps as one.
    """

    job: int
    parameters: int
    warmup_steps: int
    warmup_s: float
    steady: bool
    losses: tuple[float, ...] = ()
    steps: int = 0
    window_s: float = 0.0
    step_times_s: tuple[float, ...] = ()
    cycle: int = 1
    validation_loss: float | None = None
    validations: tuple[ValidationRecord, ...] = ()
    shared_loss: float | None = None
    compile_s: float = 0.0
    started_s: float = 0.0
    stopped_s: float = 0.0
    compute_s: float | None = None
    stacked: int = 1
    generation: GenerationRecord | None = None

    @property
    def total_steps(self) -> int:
        """All steps that the model has taken."""
        return self.warmup_steps + self.steps


class DeviceMemory(Record):
    """Memory of one CUDA device, in bytes: torch's peaks, and the whole device's use, which other processes add to.

    `utilization` is the mean share of the window's samples during which a kernel ran, from 0 to 1.
    """

    allocated_peak: int
    reserved_peak: int
    device_used: int | None = None
    utilization: float | None = None


class MemoryRecord(Record):
    """Peak memory of a rank, in bytes.

    `resident_growth` is the peak of resident memory less what was resident before the model was built; `devices` has
    an entry for each CUDA device.
    """

    resident_growth: int | None = None
    devices: tuple[DeviceMemory, ...] = ()


class GpuSurroundings(Record):
    """A GPU when a window ended: how many processes computed on it, and what held its clock down."""

    uuid: str
    processes: int | None = None
    held_down: tuple[str, ...] = ()


class SurroundingsRecord(Record):
    """What happened around a rank during its windows.

    Of its cores: `busy_s` CPU seconds that anybody used, `stolen_s` that a hypervisor gave away, and how often heat
    `throttled` them; `own_s` CPU seconds that the rank used itself; `window_s` the length of the windows.
    """

    window_s: float = 0.0
    busy_s: float = 0.0
    stolen_s: float = 0.0
    own_s: float = 0.0
    throttled: int = 0
    gpus: tuple[GpuSurroundings, ...] = ()


class TrafficRecord(Record):
    """What a rank does with process groups in a step: how many calls (collectives, sends and receives), and the bytes
    of the tensors that it hands to all but the receives. What that makes on the wire is the backend's affair.
    """

    calls: float
    given_bytes: float


class Failure(Record):
    """Why a rank stopped: the error, its traceback, and when (seconds on the node's monotonic clock)."""

    error: str
    traceback: str
    out_of_memory: bool
    at: float


class RankRecord(Record):
    """What one rank did, rewritten at each stage, so that it tells how far a rank came that never ended.

    `node` and `local_rank` say where it ran; `met_at` is when all ranks had met, on the node's monotonic clock: what
    happened on different nodes can only be put in order by its distance from there.
    `averaged_validation_loss` is that of the average of all models (nats per token), where one was made. `traffic` is
    empty where the rank works alone. `twins` are those of the first model, and `matmul_flops` is what the rank's first
    device reaches in matrix products (floating-point operations a second); only what is not timed has them.
    """

    rank: int
    host: str
    node: int = 0
    local_rank: int = 0
    pid: int
    met_at: float | None = None
    lane: int = 0
    shard: int = 0
    threads: int = 1
    cores: tuple[int, ...] = ()
    stage: Stage = "start"
    jobs: tuple[JobRecord, ...] = ()
    memory: MemoryRecord = MemoryRecord()
    surroundings: SurroundingsRecord = SurroundingsRecord()
    traffic: TrafficRecord | None = None
    averaged_validation_loss: float | None = None
    twins: tuple[TwinRecord, ...] = ()
    matmul_flops: float | None = None
    failure: Failure | None = None


class Trial(Record):
    """One launch of one cell: a line of `trials.jsonl`.

    `key` is the hash of all that decides what was measured, `environment` the digest of where, `code` that of the code
    which measured; `wall_s` runs from the launch to the end of the last rank; `warnings` say what disturbed it.
    """

    schema_version: int = SCHEMA_VERSION
    purpose: Purpose
    cell: str
    key: str
    round: int
    environment: str
    code: str = ""
    started_at: str
    wall_s: float
    status: Status
    reason: str | None = None
    log_tail: str = ""
    warnings: tuple[str, ...] = ()
    ranks: tuple[RankRecord, ...] = ()


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


class NodeRecord(Record):
    """A node of a run, and how it is joined to the others.

    `interface` has the node's `address`; `interface_mbit` is its speed as the kernel tells it, `shaped_mbit` the rate
    that traffic control limits it to (both Mbit/s); `gpu_links` as in the environment. `machine` is the same for nodes
    that are only parts of one machine, such as network namespaces; `clock_offset_s` is how far the node's clock is
    ahead of the first node's, and `differs` names what else is not as there, by its field of the environment.
    """

    node: int
    host: str
    address: str
    interface: str | None = None
    interface_mbit: int | None = None
    shaped_mbit: float | None = None
    gpu_links: dict[str, str] = Field(default_factory=dict)
    machine: str
    clock_offset_s: float = 0.0
    differs: tuple[str, ...] = ()

    @property
    def mbit(self) -> float | None:
        """What its link lets through, in Mbit/s; None where that is not known."""
        return self.shaped_mbit or self.interface_mbit

    @property
    def link(self) -> str:
        """How it is joined to the others, in words."""
        rated = f", {self.interface_mbit:,} Mbit/s" if self.interface_mbit else ""
        shaped = f", limited to {self.shaped_mbit:,g} Mbit/s" if self.shaped_mbit else ""
        return f"{self.interface or 'unknown interface'}{rated}{shaped}"


class RunRecord(Record):
    """What a run set out to do and where: the content of its folder's `run.json`.

    `environment_digest` and `code` are what trials must carry to count: a resumed run may hold others.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    created_at: str
    command: tuple[str, ...]
    scenario: dict[str, Any]
    rounds: int = Field(ge=1)
    environment: dict[str, Any]
    environment_digest: str
    code: str = ""
    corpora: dict[str, Corpus]
    launcher: str = "local"
    nodes: tuple[NodeRecord, ...] = ()
    cells: tuple[CellRecord, ...]

    @property
    def emulated_nodes(self) -> bool:
        """Whether nodes are only parts of one machine, such as network namespaces."""
        return len({node.machine for node in self.nodes}) < len(self.nodes)

    @property
    def link_mbit(self) -> float | None:
        """What the slowest link between nodes lets through, in Mbit/s; None where one is not known."""
        known = [node.mbit for node in self.nodes if node.mbit]
        return min(known) if known and len(known) == len(self.nodes) else None
