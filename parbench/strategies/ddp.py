"""DistributedDataParallel: a replica a process, gradients averaged while the backward pass still runs."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveFloat, PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, require_equal_parts
from parbench.system.devices import Devices

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed import ProcessGroup
    from torch.nn.parallel import DistributedDataParallel

    from parbench.training.workload import Workload


class DDPOptions(Options):
    """As `DistributedDataParallel` names them.

    `communication_hook` makes gradients smaller on the wire: rounded to 16 bits, or of low rank (`powersgd` of rank
    `powersgd_rank`; Vogels et al. 2019). `shard_optimizer` keeps a part of the optimizer's state in each rank (ZeRO
    stage 1; Rajbhandari et al. 2020).
    """

    gradient_as_bucket_view: bool = True
    static_graph: bool = False
    bucket_cap_mb: PositiveFloat | None = None
    communication_hook: Literal["none", "fp16", "bf16", "powersgd"] = "none"
    powersgd_rank: PositiveInt = 2
    shard_optimizer: bool = False


class DDP(Strategy[DDPOptions]):
    """Every rank holds the model and a shard of the batch; gloo on CPU, NCCL on CUDA.

    Method: Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training". Without training
    there is nothing to average: replicas that never speak.
    """

    name = "ddp"
    options_type = DDPOptions
    imports = ("torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook", "torch.distributed.optim")

    @classmethod
    def layout(cls, options: DDPOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process and a data shard for each device."""
        require_equal_parts(workload, devices.count, "data shards")
        if options.communication_hook == "bf16" and devices.kind == "cpu":
            raise Unsupported("torch's bf16 communication hook needs CUDA; fp16 works on CPU")
        if options.shard_optimizer and workload.precision == "fp16":
            raise Unsupported("loss scaling cannot look into an optimizer that is sharded; use bf16")
        if options.communication_hook == "powersgd" and workload.precision == "fp16":
            raise Unsupported("powersgd carries what it left out on to the next step: after one overflow, for good")
        if options.static_graph and workload.gradient_accumulation > 1:
            raise Unsupported("static_graph expects every backward pass to be alike, and accumulation skips exchanges")
        return Layout(processes=devices.count, data_shards=devices.count)

    @classmethod
    def is_exact(cls, options: DDPOptions) -> bool:
        """A hook rounds gradients."""
        return options.communication_hook == "none"

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Wraps the model for training; the optimizer is whole in each rank or a shard of it."""
        super().setup(workload, job, context)
        if workload.trains and self.options.shard_optimizer and context.ranks > 1:
            from torch.distributed.optim import ZeroRedundancyOptimizer

            optimizer_class, arguments = workload.optimizer_class(job)
            sharded = ZeroRedundancyOptimizer(
                self.model.parameters(),
                optimizer_class,
                process_group=context.group,
                # A rank's share is broadcast in one piece instead of parameter by parameter.
                parameters_as_bucket_view=True,
                **arguments,
            )
            self.updates = workload.updates_with(sharded)

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":
        """Gradients are views of the buckets that are reduced, so none is copied. There are no buffers to send."""
        if not self.workload.trains:
            return model
        return data_parallel(model, context.devices[0], self.options, process_group=context.group)

    def part_of_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients stay here until the last part."""
        return nullcontext() if last else self.model.no_sync()  # type: ignore[operator]


def data_parallel(
    model: "nn.Module", device: "torch.device", options: DDPOptions, **over: Any
) -> "DistributedDataParallel":
    """The model as `DistributedDataParallel` with these options; `over` is its `process_group` or `device_mesh`."""
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        **{**over, _buffer_argument(): False},
        gradient_as_bucket_view=options.gradient_as_bucket_view,
        static_graph=options.static_graph,
        bucket_cap_mb=options.bucket_cap_mb,
    )
    hook = _communication_hook(options, over.get("process_group"))
    if hook is not None:
        state, function = hook
        wrapped.register_comm_hook(state, function)
    return wrapped


def _buffer_argument() -> str:
    """What says whether buffers are sent in every forward pass: torch 2.13 gave it another name."""
    from torch.nn.parallel import DistributedDataParallel

    known = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"


def _communication_hook(options: DDPOptions, group: "ProcessGroup | None") -> tuple[Any, Callable[..., Any]] | None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    match options.communication_hook:
        case "fp16":
            return group, default_hooks.fp16_compress_hook
        case "bf16":
            return group, default_hooks.bf16_compress_hook
        case "powersgd":
            # It reduces whole gradients in its first steps, and must do so while buckets are still rebuilt.
            state = powerSGD_hook.PowerSGDState(
                group, matrix_approximation_rank=options.powersgd_rank, start_powerSGD_iter=3
            )
            return state, powerSGD_hook.powerSGD_hook
        case "none":
            return None
