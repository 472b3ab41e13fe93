"""A trial, and what each of its ranks measured."""

from typing import Literal

from pydantic import Field

from parbench.base_types import Record
from parbench.records.account import AccountRecord
from parbench.records.assignment import Purpose, Twin
from parbench.records.curves import CurvesRecord
from parbench.records.energy import EnergyRecord
from parbench.records.memory_account import MemoryAccountRecord
from parbench.records.routing import RoutingRecord

SCHEMA_VERSION = 1


Status = Literal["ok", "skipped", "failed", "killed", "out_of_memory", "timed_out"]


Milestone = Literal[
    "start", "join", "setup", "steps", "warm-up", "window", "validation", "traffic", "account", "memory", "curves",
    "close", "done",
]  # fmt: skip


class TwinRecord(Record):
    """A twin of the reference: its loss on the global batch at each step (nats per token)."""

    twin: Twin
    losses: tuple[float, ...]


class ValidationRecord(Record):
    """The mean validation loss (nats per token) after `steps` steps."""

    steps: int
    loss: float


class GenerationRecord(Record):
    """The tokens that a rank generated, and their times. It is empty on ranks that do not receive the tokens.

    `sequences` has a digest for each sequence of the verified steps, of its new tokens. `first_token_s` has the time to
    the first token for each step of the window, and `token_s` the times from each token to the next (seconds). Of a
    reference, `closest_choices` has for each sequence how far the two largest logits lay apart at its closest token.
    """

    sequences: tuple[str, ...] = ()
    first_token_s: tuple[float, ...] = ()
    token_s: tuple[float, ...] = ()
    closest_choices: tuple[float, ...] = ()


class JobRecord(Record):
    """One model on one rank. Times are in seconds; losses in nats per token, of this rank's shard of the batch.

    `losses` are those of the verified steps, beginning with warm-up. `validation_loss` is the mean over the validation
    batches after the window; `validations` are such means of an untimed trial. All are empty on ranks that compute no
    loss. `shared_loss` is the loss of a batch that all ranks evaluate after untimed steps.

    `steady` says whether warm-up ended as it should: after the steps that were asked for or, where it is `auto`,
    because steps had stopped getting faster. One step in every `cycle` may do more than the others, such as
    synchronising. `compile_s` is the time of torch.compile, which is all before the window: of the graphs that it
    needed, `cache_hits` were in its caches on disk, and `cache_misses` were compiled. `started_s` and `stopped_s` are
    the ends of the window on the host's monotonic clock. `waiting_s` is the part of the window in which the rank waited
    for other stages, for strategies that measure it; records of older versions have `compute_s` instead, which is the
    part in forward and backward passes. `stacked` is the number of models that one call trains together.
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
    cache_hits: int = 0
    cache_misses: int = 0
    started_s: float = 0.0
    stopped_s: float = 0.0
    compute_s: float | None = None
    waiting_s: float | None = None
    stacked: int = 1
    generation: GenerationRecord | None = None

    @property
    def total_steps(self) -> int:
        """The steps of warm-up and window together."""
        return self.warmup_steps + self.steps


class DeviceMemory(Record):
    """Memory of one CUDA device, in bytes: torch's peaks, and what all processes together use of the device.

    `utilization` is the share of time in which a kernel ran, as the mean of the window's samples, from 0 to 1.
    """

    allocated_peak: int
    reserved_peak: int
    device_used: int | None = None
    utilization: float | None = None


class MemoryRecord(Record):
    """Peak memory of a rank, in bytes.

    `resident_growth` is the peak of resident memory minus what was resident before the model was built. Of that, at the
    end of the trial, `file_growth` were pages of files, which are mostly libraries' code, and `shared_growth` shared
    memory; older records lack both. `devices` has an entry for each CUDA device.
    """

    resident_growth: int | None = None
    file_growth: int | None = None
    shared_growth: int | None = None
    devices: tuple[DeviceMemory, ...] = ()


class GpuSurroundings(Record):
    """A GPU: the number of processes that compute on it at the end of a window, without servers of MPS.

    `mps` says whether the rank goes through the Multi-Process Service; it is None where the driver does not tell.
    `throttled_s` are the seconds of all windows for which each cause held its clock down, of the causes that NVML
    counts there.
    """

    uuid: str
    processes: int | None = None
    mps: bool | None = None
    throttled_s: dict[str, float] = Field(default_factory=dict)


class SurroundingsRecord(Record):
    """What else happened on a rank's cores and GPUs during its windows, which are `window_s` seconds long together.

    `busy_s` are the CPU seconds that all processes used on its cores, `own_s` those that the rank used, and `stolen_s`
    those that the hypervisor gave to other machines. `throttled` counts how often heat slowed the cores down.
    """

    window_s: float = 0.0
    busy_s: float = 0.0
    stolen_s: float = 0.0
    own_s: float = 0.0
    throttled: int = 0
    gpus: tuple[GpuSurroundings, ...] = ()


class TrafficRecord(Record):
    """A rank's communication in a step: the number of `calls` (collectives, sends and receives), and the bytes of the
    tensors that it passes to collectives and sends. How many bytes go over the wire depends on the backend.
    """

    calls: float
    given_bytes: float


class Failure(Record):
    """The error that ended a rank, its traceback, and the time of it (seconds on the node's monotonic clock)."""

    error: str
    traceback: str
    out_of_memory: bool
    at: float


class RankRecord(Record):
    """What one rank did. It is written anew at each stage, so it shows how far a rank came that hangs or is killed.

    `node` and `local_rank` say where it ran. `met_at` is the time at which all ranks had met, on the node's monotonic
    clock: events on different nodes are ordered by their distance from it, because clocks of two nodes differ.
    `averaged_validation_loss` is that of the average of all models (nats per token), for strategies that make one.
    `energy` is None in untimed trials and in records of older versions, `traffic` where the rank works alone,
    `routing` where its model has no experts.
    `account` says where the time of a step goes, and `memory_account` what the memory of the last model holds. Untimed
    trials have `twins`, which are those of the first model, and `matmul_flops`, the floating-point operations per
    second of matrix products on the rank's first device; of a reference, `rounding_jump` is how far one rounding may
    move its loss (nats per token). `curves` is what a rank found that measures its machine and trains nothing.
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
    stage: Milestone = "start"
    jobs: tuple[JobRecord, ...] = ()
    memory: MemoryRecord = MemoryRecord()
    surroundings: SurroundingsRecord = SurroundingsRecord()
    energy: EnergyRecord | None = None
    traffic: TrafficRecord | None = None
    routing: RoutingRecord | None = None
    account: AccountRecord | None = None
    memory_account: MemoryAccountRecord | None = None
    averaged_validation_loss: float | None = None
    twins: tuple[TwinRecord, ...] = ()
    matmul_flops: float | None = None
    rounding_jump: float = 0.0
    curves: CurvesRecord | None = None
    failure: Failure | None = None


class Trial(Record):
    """One launch of one cell: a line of `trials.jsonl`.

    `key` is the hash of everything that decides what is computed, `environment` the digest of the environment, and
    `code` that of parbench's code. `repeat` counts the launches of one cell in one round from 0. `wall_s` is the time
    from the launch to the end of the last rank. `warnings` say what disturbed the measurement.
    """

    schema_version: int = SCHEMA_VERSION
    purpose: Purpose
    cell: str
    key: str
    round: int
    repeat: int = 0
    environment: str
    code: str = ""
    started_at: str
    wall_s: float
    status: Status
    reason: str | None = None
    log_tail: str = ""
    warnings: tuple[str, ...] = ()
    ranks: tuple[RankRecord, ...] = ()
