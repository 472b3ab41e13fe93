"""The one interface of all strategies. Whatever the runner would otherwise branch on is data here."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from parbench.base_types import DeviceKind, Phase
from parbench.errors import Unsupported
from parbench.registry import Registry
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.system.devices import Devices

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from parbench.data.batches import Batch
    from parbench.training.generation import Mark
    from parbench.training.updates import Updates
    from parbench.training.workload import Workload

STRATEGIES: "Registry[Strategy[Any]]" = Registry("parbench.strategies")

O = TypeVar("O", bound=Options)  # noqa: E741


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a strategy makes of N devices.

    `processes` ranks of `devices_per_process` devices, or several processes sharing each device; the global batch cut
    into `data_shards` equal parts; `lanes` of models that are trained at the same time, each training `stacked` of
    them in one step; `queued` where a lane that is free takes the next model; `averaged` where the parameters of
    all models are averaged into one at the end; `emulated` where the strategy stands in
    for what torch lacks here. `note` tells people how the model lies on the devices, and `bubble` is the share of time
    that a pipeline's schedule leaves its stages idle if all else is ideal.
    """

    processes: int
    devices_per_process: int = 1
    processes_per_device: int = 1
    data_shards: int = 1
    lanes: int = 1
    stacked: int = 1
    queued: bool = False
    averaged: bool = False
    emulated: bool = False
    note: str = ""
    bubble: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.devices_per_process, self.processes_per_device, self.data_shards, self.lanes, self.stacked)
        if min(self.processes, *numbers) < 1:
            raise ValueError(f"every number of a layout is at least 1: {self}")
        if self.processes % (self.lanes * self.data_shards):
            raise ValueError(f"the processes of a layout divide evenly into its lanes and data shards: {self}")

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.processes * self.devices_per_process // self.processes_per_device

    @property
    def shape(self) -> tuple[int, ...]:
        """What decides which rank works on which part of which model."""
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
        """The numbers of the devices that a rank of this host drives."""
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
        return ", ".join(words + [self.note] * bool(self.note))


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a rank runs: its place in its lane, its devices, and on CPU the logical CPUs of each of them.

    `group` are the ranks of the lane (None where a lane is one of several and a single rank); `stacked` is how many
    models they train in one step.
    """

    rank: int
    ranks: int
    devices: "tuple[torch.device, ...]"
    cores: tuple[tuple[int, ...], ...]
    threads: int
    group: "ProcessGroup | None"
    stacked: int = 1


class Strategy(ABC, Generic[O]):
    """A way of laying a workload out over devices. Defining a subclass with a `name` registers it.

    The default runs one whole model on one device; most strategies say how many processes there are, and wrap the
    model. A strategy object lives in one rank and runs one model: `setup`, then steps (phase `train`), `evaluate`
    (also phase `score`) or `generate`, and `close`.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    """Computes what one device computes, so that the parity gate applies."""
    reference: ClassVar[bool] = False
    """Is what all others are compared with."""
    scales: ClassVar[bool] = True
    """Takes more devices; otherwise it is one cell, on one device."""
    phases: ClassVar[tuple[Phase, ...]] = ("train", "score", "generate")
    device_kinds: ClassVar[tuple[DeviceKind, ...]] = ("cpu", "cuda")
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
        """What this strategy makes of `devices`. Touches no device; raises `Unsupported` with the reason."""

    @classmethod
    def variants(cls, options: O, workload: WorkloadSpec, devices: Devices) -> Sequence[O]:  # noqa: ARG003
        """The options with every `auto` decided for these devices: each becomes a cell of its own."""
        return [options]

    @classmethod
    def is_exact(cls, options: O) -> bool:  # noqa: ARG003 - for overriding
        """Whether it computes what one device computes under these options."""
        return cls.exact

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds model number `job` and, to train it, its optimizer."""
        self.workload = workload
        self.model = self.wrap(workload.model(job), context)
        if workload.trains:
            self.updates = workload.updates(self.model.parameters(), job)

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":  # noqa: ARG002 - for overriding
        """The model as this strategy runs it; itself, unless overridden."""
        return model

    def step(self, batch: "Batch") -> "Tensor | None":
        """One whole optimizer step on this rank's shard. The loss, detached; None where this rank has none."""
        loss = self.accumulate(batch)
        self.updates.apply()
        return loss

    def accumulate(self, batch: "Batch") -> "Tensor":
        """The gradients of the mean loss over `batch`, in as many parts as the workload says; that loss, detached."""
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
        """Around the passes of one part of an accumulated step; gradients need to be exchanged in the last only."""
        return nullcontext()

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss without a step; None where this rank has none. Called with gradients off, in every rank alike."""
        return self.loss(batch)

    def generate(self, prompts: "Tensor", new_tokens: int, mark: "Mark") -> "Tensor | None":
        """The tokens (batch, new_tokens) after `prompts` (batch, length); None where this rank does not have them.

        `mark` is called as each token comes to be.
        """
        from parbench.training.generation import decode_greedily

        return decode_greedily(self.model, prompts, new_tokens, mark)

    def loss(self, batch: "Batch") -> "Tensor":
        """The mean loss of this rank's shard, in nats per token."""
        from parbench.training.workload import next_token_loss

        return next_token_loss(self.model(batch.inputs), batch.targets)

    def compute_s(self) -> float | None:
        """Seconds this rank has spent on forward and backward passes so far, where the strategy keeps count."""
        return None

    def cycle(self) -> int:
        """After how many steps what they do, and what the ranks say to each other, repeats."""
        return 1

    def settling_steps(self) -> int:
        """How many steps differ from all that follow, and so must not be measured."""
        return 0

    def close(self) -> None:
        """Lets go of what `setup` took, other than memory."""


def line_of_devices(context: Context) -> "DeviceMesh":
    """The ranks of a lane as a mesh of one dimension."""
    from torch.distributed.device_mesh import DeviceMesh

    if context.group is None:
        raise ValueError("a lane of one rank among several has no group to make a mesh of")
    return DeviceMesh.from_group(context.group, context.devices[0].type)


def require_equal_parts(workload: WorkloadSpec, parts: int, what: str) -> None:
    """Raises `Unsupported` unless the global batch divides into `parts` equal `what`, also where steps accumulate."""
    accumulated = workload.gradient_accumulation
    if workload.global_batch % (parts * accumulated):
        each = f", each in {accumulated} parts (gradient_accumulation)" if accumulated > 1 else ""
        raise Unsupported(
            f"a global batch of {workload.global_batch} does not divide into {parts} equal {what}{each}",
            field="global_batch",
        )


def refuse(workload: WorkloadSpec, **reasons: str) -> None:
    """Raises `Unsupported` with the reason of the first field of the workload that is set and stands in the way."""
    for field, reason in reasons.items():
        value = getattr(workload, field)
        if value is True or (not isinstance(value, bool) and value not in (None, 1)):
            raise Unsupported(reason)
