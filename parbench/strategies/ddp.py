"""DistributedDataParallel: a replica in each process; gradients are averaged while the backward pass still runs."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveFloat, PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, require_equal_parts
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed import ProcessGroup
    from torch.nn.parallel import DistributedDataParallel

    from parbench.training.workload import Workload


class DDPOptions(Options):
    """The arguments of `DistributedDataParallel`, under its names.

    `communication_hook` sends gradients in fewer bytes: rounded to 16 bits, or as matrices of low rank (`powersgd`
    of rank `powersgd_rank`; Vogels et al. 2019). `shard_optimizer` keeps a part of the optimizer's state in each rank
    (ZeRO stage 1; Rajbhandari et al. 2020).
    """

    gradient_as_bucket_view: bool = True
    static_graph: bool = False
    bucket_cap_mb: PositiveFloat | None = None
    communication_hook: Literal["none", "fp16", "bf16", "powersgd"] = "none"
    powersgd_rank: PositiveInt = 2
    shard_optimizer: bool = False


class DDP(Strategy[DDPOptions]):
    """Every rank holds the model and a shard of the batch; gloo on CPU, NCCL on CUDA.

    Method: Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training". Without
    training there is nothing to average, and replicas do not communicate.
    """

    name = "ddp"
    gloo_suffices = True
    options_type = DDPOptions
    imports = ("torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook", "torch.distributed.optim")

    @classmethod
    def layout(cls, options: DDPOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process and a data shard for each device."""
        require_equal_parts(workload, devices.count, "data shards")
        if options.communication_hook == "bf16" and devices.kind == "cpu":
            raise Unsupported("torch's bf16 communication hook needs CUDA; fp16 works on CPU")
        if options.shard_optimizer and workload.precision == "fp16":
            raise Unsupported("fp16 loss scaling cannot see the gradients of a sharded optimizer; use bf16")
        if options.communication_hook == "powersgd" and workload.precision == "fp16":
            raise Unsupported(
                "powersgd adds its error to the next step's gradients: after one overflow, for good; use bf16"
            )
        if options.static_graph and workload.gradient_accumulation > 1:
            raise Unsupported(
                "static_graph needs all backward passes to be alike, and gradient_accumulation skips some exchanges"
            )
        return Layout(processes=devices.count, data_shards=devices.count)

    @classmethod
    def is_exact(cls, options: DDPOptions) -> bool:
        """Not with a communication hook, which rounds gradients."""
        return options.communication_hook == "none"

    @classmethod
    def pieces(
        cls, options: DDPOptions, workload: WorkloadSpec, layout: Layout, rank: int, outline: Sequence[Outline]
    ) -> list[Piece]:
        """All of each parameter, and the optimizer's state of those that ZeroRedundancyOptimizer gives to the rank.

        It goes from the largest to the smallest, each to the rank that has least so far.
        """
        pieces = super().pieces(options, workload, layout, rank, outline)
        if not options.shard_optimizer or layout.ranks_per_lane == 1:
            return pieces
        elements = [0] * layout.ranks_per_lane
        owners: dict[str, int] = {}
        for piece in sorted(pieces, key=lambda piece: -piece.parameter):
            owner = owners[piece.of.name] = elements.index(min(elements))
            elements[owner] += piece.parameter
        return [piece if owners[piece.of.name] == rank else piece._replace(stepped=None) for piece in pieces]

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Wraps the model for training; each rank has the whole optimizer, or a shard of it."""
        super().setup(workload, job, context)
        if workload.trains and self.options.shard_optimizer and context.ranks > 1:
            from torch.distributed.optim import ZeroRedundancyOptimizer

            optimizer_class, arguments = workload.optimizer_class(job)
            sharded = ZeroRedundancyOptimizer(
                self.model.parameters(),
                optimizer_class,
                process_group=context.group,
                # Each rank broadcasts its share in one piece, and not parameter by parameter.
                parameters_as_bucket_view=True,
                **arguments,
            )
            self.updates = workload.updates_with(sharded)

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":
        """The model in DDP, where it is trained."""
        if not self.workload.trains:
            return model
        return wrap_in_ddp(model, context.devices[0], self.options, process_group=context.group)

    def part_of_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged in the last part only."""
        return nullcontext() if last else self.model.no_sync()  # type: ignore[operator]


def wrap_in_ddp(
    model: "nn.Module", device: "torch.device", options: DDPOptions, **over: Any
) -> "DistributedDataParallel":
    """The model in `DistributedDataParallel`. `over` is its `process_group` or `device_mesh`; buffers are not sent."""
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        **{**over, _buffer_argument(): False},
        gradient_as_bucket_view=options.gradient_as_bucket_view,
        static_graph=options.static_graph,
        bucket_cap_mb=options.bucket_cap_mb,
    )
    hook = _choose_hook(options, over.get("process_group"))
    if hook is not None:
        state, function = hook
        wrapped.register_comm_hook(state, function)
    return wrapped


def _buffer_argument() -> str:
    """The argument that turns off sending buffers in every forward pass; torch 2.13 renamed it."""
    from torch.nn.parallel import DistributedDataParallel

    arguments = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in arguments else "broadcast_buffers"


def _choose_hook(options: DDPOptions, group: "ProcessGroup | None") -> tuple[Any, Callable[..., Any]] | None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    match options.communication_hook:
        case "fp16":
            return group, default_hooks.fp16_compress_hook
        case "bf16":
            return group, default_hooks.bf16_compress_hook
        case "powersgd":
            # It reduces whole gradients in its first steps, as it must while DDP still rebuilds its buckets.
            state = powerSGD_hook.PowerSGDState(
                group, matrix_approximation_rank=options.powersgd_rank, start_powerSGD_iter=3
            )
            return state, powerSGD_hook.powerSGD_hook
        case "none":
            return None
