"""The interface of all strategies. Whatever the runner would otherwise branch on is data here."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from parbench.base_types import DeviceKind, Phase
from parbench.errors import Unsupported
from parbench.registry import Registry
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import torch
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.optim import Optimizer

    from parbench.data.batches import Batch
    from parbench.training.generation import Mark
    from parbench.training.updates import Updates
    from parbench.training.workload import Workload

STRATEGIES: "Registry[Strategy[Any]]" = Registry("parbench.strategies")

O = TypeVar("O", bound=Options)  # noqa: E741


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a strategy lays a workload out over N devices.

    `processes` ranks drive `devices_per_process` devices each, or `processes_per_device` of them share a device; `mps`:
    through the Multi-Process Service, which the launcher starts. The global batch is cut into `data_shards` equal
    parts, which a process divides among its devices, and computes in `micro_batches` equal parts one after another.
    `lanes` models are trained at the same time, or `stacked` models in every lane, in one step. `queued`: a lane that
    is free takes the next model. `averaged`: the parameters of all models are averaged into one at the end. `emulated`:
    the strategy stands in for what torch lacks on these devices. `note` says what the numbers do not, such as where the
    parts of the model are. `bubble` is the share of time, from 0 to 1, that a pipeline's schedule leaves its stages
    idle if all else is ideal. `traffic_varies`: how much ranks exchange in a step depends on the data.
    """

    processes: int
    devices_per_process: int = 1
    processes_per_device: int = 1
    mps: bool = False
    data_shards: int = 1
    micro_batches: int = 1
    lanes: int = 1
    stacked: int = 1
    queued: bool = False
    averaged: bool = False
    emulated: bool = False
    note: str = ""
    bubble: float | None = None
    traffic_varies: bool = False

    def __post_init__(self) -> None:
        per_process = (self.devices_per_process, self.processes_per_device, self.micro_batches)
        if min(self.processes, *per_process, self.data_shards, self.lanes, self.stacked) < 1:
            raise ValueError(f"every number of a layout must be at least 1: {self}")
        if self.processes % (self.lanes * self.data_shards):
            raise ValueError(f"the processes of a layout must divide evenly into its lanes and data shards: {self}")

    @property
    def devices(self) -> int:
        """How many devices it uses."""
        return self.processes * self.devices_per_process // self.processes_per_device

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers that decide which rank works on which part of which model."""
        return self.processes, self.devices_per_process, self.data_shards, self.lanes, self.stacked

    @property
    def ranks_per_lane(self) -> int:
        """How many consecutive ranks train one model together."""
        return self.processes // self.lanes

    def coordinate(self, rank: int) -> tuple[int, int]:
        """The (lane, data shard) of a rank. Ranks that share a shard hold different parts of the model."""
        lane, within = divmod(rank, self.ranks_per_lane)
        return lane, within // (self.ranks_per_lane // self.data_shards)

    def devices_of(self, local_rank: int) -> range:
        """The numbers of the devices that a rank of this node drives."""
        first = local_rank // self.processes_per_device * self.devices_per_process
        return range(first, first + self.devices_per_process)

    def in_words(self, nodes: int = 1) -> str:
        """The layout on so many nodes as tables show it, such as `2 processes, 2 data shards`."""
        parts = [(self.processes, "process", "processes")]
        parts += [(self.devices_per_process, "device each", "devices each")] * (self.devices_per_process > 1)
        parts += [(self.processes_per_device, "", "on each device")] * (self.processes_per_device > 1)
        parts += [(self.data_shards, "data shard", "data shards")] * (self.data_shards > 1)
        parts += [(self.lanes, "lane", "lanes")] * (self.lanes > 1)
        parts += [(self.stacked, "model stacked", "models stacked")] * (self.stacked > 1)
        words = [f"{count} {singular if count == 1 else plural}" for count, singular, plural in parts]
        words[0] += f" on {nodes} nodes" * (nodes > 1)
        return ", ".join(words + ["through MPS"] * self.mps + [self.note] * bool(self.note))


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a rank runs: its place in its lane, its devices, and on CPU the logical CPUs of each of them.

    `group` is the process group of the lane; None where there are several lanes of one rank each. `stacked` is how many
    models the lane trains in one step.
    """

    rank: int
    ranks: int
    devices: "tuple[torch.device, ...]"
    cores: tuple[tuple[int, ...], ...]
    threads: int
    group: "ProcessGroup | None"
    stacked: int = 1


class StepPart(NamedTuple):
    """A method of an object, whose calls are the part of a step called `name`; the parts are those of an account."""

    owner: Any
    method: str
    name: str


class Strategy(ABC, Generic[O]):
    """A way of laying a workload out over devices. Defining a subclass with a `name` registers it.

    The default runs one whole model on one device; most strategies say how many processes there are, and wrap the
    model. A strategy object lives in one rank and runs one model: `setup`, then steps (phase `train`), `evaluate`
    (also phase `score`) or `generate`, and `close`.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    """It computes what one device computes, so the parity gate applies."""
    reference: ClassVar[bool] = False
    """It is what all other strategies are compared with."""
    independent: ClassVar[bool] = False
    """It trains a model of its own on each device, and devices do not communicate."""
    scales: ClassVar[bool] = True
    """It can use more than one device; otherwise it makes one cell, on one device."""
    phases: ClassVar[tuple[Phase, ...]] = ("train", "score", "generate")
    device_kinds: ClassVar[tuple[DeviceKind, ...]] = ("cpu", "cuda")
    gloo_suffices: ClassVar[bool] = False
    """Ranks that train one model exchange nothing on CUDA but all-reduces and broadcasts, which gloo can do there.

    So they may share a GPU, which NCCL's ranks cannot."""
    options_type: ClassVar[type[Options]] = Options
    imports: ClassVar[tuple[str, ...]] = ()
    """Modules beyond torch that ranks need: the launcher imports them once instead of in every trial."""

    workload: "Workload"
    model: "nn.Module"
    updates: "Updates"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            STRATEGIES.add(cls.name, cls)

    def __init__(self, options: O) -> None:
        self.options = options

    @classmethod
    @abstractmethod
    def layout(cls, options: O, workload: WorkloadSpec, devices: Devices) -> Layout:
        """How this strategy lays a workload out. Touches no device; raises `Unsupported` with the reason."""

    @classmethod
    def variants(cls, options: O, workload: WorkloadSpec, devices: Devices) -> Sequence[O]:  # noqa: ARG003
        """The options with a value for every `auto`, for these devices; each of them becomes a cell of its own."""
        return [options]

    @classmethod
    def is_exact(cls, options: O) -> bool:  # noqa: ARG003 - for overriding
        """Whether it computes what one device computes under these options."""
        return cls.exact

    @classmethod
    def pieces(
        cls,
        options: O,  # noqa: ARG003 - for overriding
        workload: WorkloadSpec,  # noqa: ARG003
        layout: Layout,
        rank: int,  # noqa: ARG003
        outline: Sequence[Outline],
    ) -> list[Piece]:
        """What rank number `rank` of a lane holds of the parameters of a whole model: all of each, unless overridden.

        This is the arithmetic that the account of memory compares with; it touches no device.
        """
        return [Piece.whole(parameter, layout.stacked) for parameter in outline]

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds model number `job` and, to train it, its optimizer."""
        self.workload = workload
        self.model = workload.model(job, wrap=lambda model: self.wrap(model, context))
        if workload.trains:
            self.updates = workload.updates(self.model.parameters(), job)

    def optimizers(self) -> "Sequence[Optimizer]":
        """What changes the parameters, once `setup` is done: several where each of several models has its own."""
        return [self.updates.optimizer]

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":  # noqa: ARG002 - for overriding
        """The model as this strategy runs it; itself, unless overridden."""
        return model

    def step(self, batch: "Batch") -> "Tensor | None":
        """Takes one whole optimizer step on this rank's shard. The loss, detached; None where this rank has none."""
        loss = self.accumulate(batch)
        self.updates.apply()
        return loss

    def accumulate(self, batch: "Batch") -> "Tensor":
        """Computes gradients of the mean loss over `batch`, in the workload's number of parts. That loss, detached."""
        count = self.workload.spec.gradient_accumulation
        if count == 1:
            loss = self.loss(batch)
            self.updates.scaled(loss).backward()
            return loss.detach()
        total: Tensor | float = 0.0
        for index, part in enumerate(batch.parts(count)):
            with self.part_of_step(last=index == count - 1):
                loss = self.loss(part) / count
                self.updates.scaled(loss).backward()
            total = total + loss.detach()
        return cast("Tensor", total)

    def part_of_step(self, *, last: bool) -> AbstractContextManager[None]:  # noqa: ARG002 - for overriding
        """The context of one part of an accumulated step; gradients need to be exchanged in the last part only."""
        return nullcontext()

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss without a step; None where this rank has none. All ranks call it together, with gradients off."""
        return self.loss(batch)

    def generate(self, prompts: "Tensor", new_tokens: int, mark: "Mark") -> "Tensor | None":
        """The tokens (batch, new_tokens) that follow `prompts` (batch, length); None where this rank has none.

        It calls `mark` after each token.
        """
        from parbench.training.generation import decode_greedily

        return decode_greedily(self.model, prompts, new_tokens, mark)

    def loss(self, batch: "Batch") -> "Tensor":
        """The mean loss of this rank's shard, in nats per token."""
        return self.workload.loss_of(self.model, batch)

    def step_parts(self) -> list[StepPart]:
        """The methods that make up a step, for the account of its time. A part may enclose others.

        Whatever else a step does counts as `other`, as far as it consists of operators. In `pipeline` a rank waits for
        other stages, but for the parts that it encloses.
        """
        parts = [StepPart(self, "loss", "forward"), StepPart(self.workload, "loss", "loss")]
        parts += [StepPart(self.updates, "apply", "optimizer")] if self.workload.trains else []
        return [*parts, StepPart(self, "generate", "forward")]

    def waiting_s(self) -> float | None:
        """Seconds that this rank has waited for other stages so far; None where there are none or nobody counts."""
        return None

    def copies(self) -> "Sequence[nn.Module]":
        """Modules beside `model` that keep parameters of it in this rank, too; none unless overridden."""
        return ()

    def own_threads(self) -> "Sequence[Executor]":
        """Executors of one thread each in which it computes beside the calling thread; none unless overridden."""
        return ()

    def cycle(self) -> int:
        """The number of steps after which the pattern of computation and communication repeats."""
        return 1

    def settling_steps(self) -> int:
        """How many steps at the start differ from all later ones, and so must not be measured."""
        return 0

    def close(self) -> None:
        """Releases what `setup` took, other than memory."""


def line_of_devices(context: Context) -> "DeviceMesh":
    """The ranks of a lane as a device mesh of one dimension."""
    from torch.distributed.device_mesh import DeviceMesh

    if context.group is None:
        raise ValueError("a lane of one rank has no process group to make a mesh of, where there are several lanes")
    return DeviceMesh.from_group(context.group, context.devices[0].type)


def require_equal_parts(workload: WorkloadSpec, parts: int, what: str) -> None:
    """Raises `Unsupported` unless the global batch, or each accumulated part of it, divides into `parts` equal parts.

    `what` names them in the reason.
    """
    accumulated = workload.gradient_accumulation
    if workload.global_batch % (parts * accumulated):
        each = f", each in {accumulated} parts (gradient_accumulation)" if accumulated > 1 else ""
        raise Unsupported(
            f"a global batch of {workload.global_batch} does not divide into {parts} equal {what}{each}",
            field="global_batch",
        )


def refuse(workload: WorkloadSpec, **reasons: str) -> None:
    """Raises `Unsupported` with the reason that is given for a field, if the workload sets that field."""
    for field, reason in reasons.items():
        value = getattr(workload, field)
        if value is True or (not isinstance(value, bool) and value not in (None, 1)):
            raise Unsupported(reason)
