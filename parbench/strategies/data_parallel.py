"""DataParallel: one process drives a replica on each device, with threads.

On CUDA it is `torch.nn.DataParallel`. On CPU that class silently runs the bare module, so the same algorithm is
carried out over core shares and labelled `emulated`: scatter, replicate, parallel apply, gather, reduce to the first.
"""

import copy
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from parbench.devices import Devices
from parbench.scenario import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, require_equal_parts

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


class DataParallel(Strategy[Options]):
    """The first device scatters the batch, gathers outputs and gradients, and alone holds the optimizer."""

    name = "data_parallel"
    threads: "DeviceThreads | None" = None

    @classmethod
    def layout(cls, options: Options, workload: WorkloadSpec, devices: Devices) -> Layout:  # noqa: ARG003
        """One process with all devices. The batch is whole: it is scattered within the step."""
        require_equal_parts(workload, devices.count, "replica batches")
        return Layout(processes=1, devices_per_process=devices.count, emulated=devices.kind == "cpu")

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":
        """As torch does, a single device gets the bare model."""
        from torch import nn

        if len(context.devices) == 1:
            return model
        if context.devices[0].type == "cuda":
            keep_rnn_weights_flat(model)
            return nn.DataParallel(model, device_ids=list(context.devices))
        self.threads = DeviceThreads(context)
        return threaded_replicas(model, self.threads)

    def close(self) -> None:
        """Ends the threads."""
        if self.threads is not None:
            self.threads.close()


def keep_rnn_weights_flat(model: "nn.Module") -> None:
    """cuDNN wants an RNN's weights in one piece; a replica gets copies, and would gather them at every call."""
    from torch import nn

    def flatten(module: nn.Module, _: Any) -> None:
        if isinstance(module, nn.RNNBase) and getattr(module, "_is_replica", False):
            module.flatten_parameters()

    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.register_forward_pre_hook(flatten)


class DeviceThreads:
    """A thread for each CPU device, pinned to its cores, with as many intra-op threads as the device has cores."""

    def __init__(self, context: Context) -> None:
        self.pools = [
            ThreadPoolExecutor(1, f"device{index}", initializer=_become_device, initargs=(cores, context.threads))
            for index, cores in enumerate(context.cores)
        ]
        # What the algorithm does on the first device (loss, reduction, optimizer) runs on this thread.
        _become_device(context.cores[0], context.threads)

    def map(self, function: Callable[..., T], *arguments: Any) -> list[T]:
        """Calls `function` in every device's thread at once; the results in the devices' order."""
        futures = [pool.submit(function, *each) for pool, *each in zip(self.pools, *arguments, strict=True)]
        return [future.result() for future in futures]

    def close(self) -> None:
        """Ends the threads."""
        for pool in self.pools:
            pool.shutdown()


def _become_device(cores: tuple[int, ...], threads: int) -> None:
    import torch

    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def threaded_replicas(root: "nn.Module", threads: DeviceThreads) -> "nn.Module":
    """A module that computes what `root` computes, over one replica a device. Only `root` has parameters to train."""
    import torch
    from torch import Tensor, nn

    # Each replica has a module of its own: threads that share one module would see each other's parameters.
    replicas = [root, *(copy.deepcopy(root) for _ in threads.pools[1:])]
    parameters = [list(replica.parameters()) for replica in replicas]

    def replicate() -> None:
        for copies in parameters[1:]:
            for target, source in zip(copies, parameters[0], strict=True):
                target.data.copy_(source.data)

    def apply(replica: nn.Module, inputs: Tensor, with_gradients: bool) -> Tensor:
        with torch.set_grad_enabled(with_gradients):
            output: Tensor = replica(inputs)
            return output

    class ScatterApplyGather(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, with_gradients: bool, inputs: Tensor, *_: Tensor) -> Tensor:
            replicate()
            shares = inputs.chunk(len(replicas))
            ctx.outputs = threads.map(apply, replicas, shares, [with_gradients] * len(replicas))
            return torch.cat([output.detach() for output in ctx.outputs])

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            shares = gradient.chunk(len(replicas))
            reduced, *others = threads.map(torch.autograd.grad, ctx.outputs, parameters, shares)
            for gradients in others:
                for total, part in zip(reduced, gradients, strict=True):
                    total.add_(part)
            ctx.outputs = None
            return None, None, *reduced

    class ThreadedReplicas(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = root

        def forward(self, inputs: Tensor) -> Tensor:
            output: Tensor = ScatterApplyGather.apply(torch.is_grad_enabled(), inputs, *parameters[0])  # type: ignore[no-untyped-call]
            return output

    return ThreadedReplicas()
