"""The one interface of all strategies. Whatever the runner would otherwise branch on is data here."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from parbench.devices import Devices
from parbench.errors import Unsupported
from parbench.registry import Registry
from parbench.scenario import Options, WorkloadSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup
    from torch.optim import Optimizer

    from parbench.training.batches import Batch
    from parbench.training.workload import Workload

STRATEGIES: "Registry[Strategy[Any]]" = Registry("parbench.strategies")

O = TypeVar("O", bound=Options)  # noqa: E741


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a strategy makes of N devices.

    `processes` ranks of `devices_per_process` devices; the global batch cut into `data_shards` equal parts; `lanes`
    of models that are trained at the same time; `emulated` where the strategy stands in for what torch lacks here.
    """

    processes: int
    devices_per_process: int = 1
    data_shards: int = 1
    lanes: int = 1
    emulated: bool = False

    def __post_init__(self) -> None:
        if min(self.processes, self.devices_per_process, self.data_shards, self.lanes) < 1:
            raise ValueError(f"every number of a layout is at least 1: {self}")
        if self.processes % (self.lanes * self.data_shards):
            raise ValueError(f"the processes of a layout divide evenly into its lanes and data shards: {self}")

    @property
    def ranks_per_lane(self) -> int:
        """How many consecutive ranks train one model together."""
        return self.processes // self.lanes

    def coordinate(self, rank: int) -> tuple[int, int]:
        """The (lane, data shard) of a rank. Ranks that share a shard hold different parts of the model."""
        lane, within = divmod(rank, self.ranks_per_lane)
        return lane, within // (self.ranks_per_lane // self.data_shards)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a rank runs: its place in its lane, its devices, and on CPU the logical CPUs of each of them."""

    rank: int
    ranks: int
    devices: "tuple[torch.device, ...]"
    cores: tuple[tuple[int, ...], ...]
    threads: int
    group: "ProcessGroup | None"


class Strategy(ABC, Generic[O]):
    """A way of laying a workload out over devices. Defining a subclass with a `name` registers it.

    The default trains one whole model on one device; most strategies say how many processes there are, and wrap
    the model. A strategy object lives in one rank and trains one model: `setup`, steps, `evaluate`, `close`.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    """Computes what one device computes, so that the parity gate applies."""
    reference: ClassVar[bool] = False
    """Is what all others are compared with."""
    scales: ClassVar[bool] = True
    """Takes more devices; otherwise it is one cell, on one device."""
    options_type: ClassVar[type[Options]] = Options
    imports: ClassVar[tuple[str, ...]] = ()
    """Modules beyond torch that ranks need: the launcher imports them once instead of in every trial."""

    workload: "Workload"
    model: "nn.Module"
    optimizer: "Optimizer"

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

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds model number `job` and its optimizer."""
        self.workload = workload
        self.model = self.wrap(workload.model(job), context)
        self.optimizer = workload.optimizer(self.model.parameters(), job)

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":  # noqa: ARG002 - for overriding
        """The model as this strategy runs it; itself, unless overridden."""
        return model

    def step(self, batch: "Batch") -> "Tensor | None":
        """One whole optimizer step on this rank's shard. The loss, detached; None where this rank has none."""
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss without a step; None where this rank has none. Called with gradients off, in every rank alike."""
        return self.loss(batch)

    def loss(self, batch: "Batch") -> "Tensor":
        """The mean loss of this rank's shard, in nats per token."""
        from parbench.training.workload import next_token_loss

        return next_token_loss(self.model(batch.inputs), batch.targets)

    def close(self) -> None:
        """Lets go of what `setup` took, other than memory."""


def require_equal_parts(workload: WorkloadSpec, parts: int, what: str) -> None:
    """Raises `Unsupported` unless the global batch divides into `parts` equal `what`."""
    if workload.global_batch % parts:
        raise Unsupported(
            f"a global batch of {workload.global_batch} does not divide into {parts} equal {what}", field="global_batch"
        )
