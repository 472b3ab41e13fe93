"""What each rank of a trial measured, and the trial made of all ranks."""

from typing import Literal

from parbench.base_types import Record
from parbench.records.assignment import Purpose, Twin

SCHEMA_VERSION = 1


Status = Literal["ok", "skipped", "failed", "killed", "out_of_memory", "timed_out"]


Stage = Literal["start", "join", "setup", "steps", "warm-up", "window", "validation", "traffic", "close", "done"]


class TwinRecord(Record):
    """The losses of a twin on the global batch, step by step (nats per token)."""

    twin: Twin
    losses: tuple[float, ...]


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
