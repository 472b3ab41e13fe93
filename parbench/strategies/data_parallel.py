"""DataParallel: one process drives a replica on each device, with threads.

On CUDA it is `torch.nn.DataParallel`, whose replicas of an `nn.LSTM` flatten their weights again in every forward pass
(`RNNBase._update_flat_weights`). On CPU that class runs the bare module without a word, so the same algorithm runs here
over shares of the cores, labelled `emulated`: scatter, replicate, parallel apply, gather, reduce to the first device.
"""

import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, refuse, require_equal_parts
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


class DataParallel(Strategy[Options]):
    """The first device scatters the batch, gathers outputs and gradients, and alone holds the optimizer."""

    name = "data_parallel"
    # Replicas exist for one forward pass only, and a cache has to outlive it.
    phases = ("train", "score")
    threads: "DeviceThreads | None" = None
    replicas: "Replicas | None" = None

    @classmethod
    def layout(cls, options: Options, workload: WorkloadSpec, devices: Devices) -> Layout:  # noqa: ARG003
        """One process with all devices. The batch is whole: it is scattered within the step."""
        require_equal_parts(workload, devices.count, "replica batches")
        if devices.count > 1:
            refuse(
                workload,
                compile="replicas are copied anew in every step, and compiled code is not",
                loss_chunks="the first device gathers whole logits, so loss_chunks has nothing to cut",
            )
            if workload.phase == "train" and workload.model.auxiliary_loss:
                raise Unsupported("replicas hand back logits alone, and not what their blocks add to the loss; use ddp")
        return Layout(processes=1, devices_per_process=devices.count, emulated=devices.kind == "cpu")

    @classmethod
    def pieces(
        cls, options: Options, workload: WorkloadSpec, layout: Layout, rank: int, outline: Sequence[Outline]
    ) -> list[Piece]:
        """On CPU, a copy of the parameters for each replica. Gradients and the optimizer are the first one's alone."""
        copies = layout.devices_per_process if layout.emulated else 1
        pieces = super().pieces(options, workload, layout, rank, outline)
        return [piece._replace(parameter=piece.parameter * copies) for piece in pieces]

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":
        """The model with a replica on each device; on a single device the bare model, as torch does it."""
        from torch import nn

        if len(context.devices) == 1:
            return model
        if context.devices[0].type == "cuda":
            return nn.DataParallel(model, device_ids=list(context.devices))
        self.threads = DeviceThreads(context)
        self.replicas = Replicas(model, self.threads)
        return replicate_over_threads(self.replicas)

    def copies(self) -> "Sequence[nn.Module]":
        """The replicas beside the model itself."""
        return self.replicas.modules[1:] if self.replicas else ()

    def own_threads(self) -> "Sequence[ThreadPoolExecutor]":
        """Those of the devices."""
        return self.threads.pools if self.threads else ()

    def close(self) -> None:
        """Ends the threads."""
        if self.threads is not None:
            self.threads.close()


class DeviceThreads:
    """A thread for each CPU device, pinned to its cores, with as many intra-op threads as the device has cores."""

    def __init__(self, context: Context) -> None:
        self.pools = [
            ThreadPoolExecutor(1, f"device{index}", initializer=_become_device, initargs=(cores, context.threads))
            for index, cores in enumerate(context.cores)
        ]
        # This thread does what the algorithm does on the first device: loss, reduction and optimizer.
        _become_device(context.cores[0], context.threads)

    def map(self, function: Callable[..., T], *arguments: Any) -> list[T]:
        """Calls `function` in all devices' threads at the same time; the results, in the order of the devices."""
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


class Replicas:
    """A model's replicas, one a device. The first is the model itself; the others copy its parameters."""

    def __init__(self, root: "nn.Module", threads: DeviceThreads) -> None:
        # Each replica is a module of its own: threads that share a module would see each other's parameters.
        self.modules = [root, *(copy.deepcopy(root) for _ in threads.pools[1:])]
        # Frozen parameters stay the same in all replicas.
        self.parameters: list[list[Tensor]] = [
            [parameter for parameter in module.parameters() if parameter.requires_grad] for module in self.modules
        ]
        self.threads = threads

    def forward(self, inputs: "Tensor", with_gradients: bool) -> "list[Tensor]":
        """Copies the parameters to all replicas, scatters `inputs` (batch, …) and runs all replicas at once."""
        import torch

        with torch.no_grad():
            for copies in self.parameters[1:]:
                torch._foreach_copy_(copies, self.parameters[0])
        count = len(self.modules)
        return self.threads.map(_apply, self.modules, inputs.chunk(count), [with_gradients] * count)

    def backward(self, outputs: "list[Tensor]", gradient: "Tensor") -> "list[Tensor]":
        """Scatters the gradient of the gathered outputs; the parameters' gradients, summed on the first device."""
        import torch

        shares = gradient.chunk(len(self.modules))
        total, *others = self.threads.map(torch.autograd.grad, outputs, self.parameters, shares)
        for gradients in others:
            torch._foreach_add_(total, gradients)
        return list(total)


def _apply(module: "nn.Module", inputs: "Tensor", with_gradients: bool) -> "Tensor":
    import torch

    with torch.set_grad_enabled(with_gradients):
        output: Tensor = module(inputs)
        return output


def replicate_over_threads(replicas: Replicas) -> "nn.Module":
    """A module that computes what the first replica does, with all of them. Only the first has parameters to train."""
    import torch
    from torch import Tensor, nn

    class ScatterApplyGather(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, with_gradients: bool, inputs: Tensor, *_: Tensor) -> Tensor:
            ctx.outputs = replicas.forward(inputs, with_gradients)
            return torch.cat([output.detach() for output in ctx.outputs])

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            gradients = replicas.backward(ctx.outputs, gradient)
            ctx.outputs = None
            return None, None, *gradients

    class ThreadedReplicas(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = replicas.modules[0]

        def train(self, mode: bool = True) -> Self:
            for replica in replicas.modules:
                replica.train(mode)
            return super().train(mode)

        def forward(self, inputs: Tensor) -> Tensor:
            with_gradients, parameters = torch.is_grad_enabled(), replicas.parameters[0]
            output: Tensor = ScatterApplyGather.apply(with_gradients, inputs, *parameters)  # type: ignore[no-untyped-call]
            return output

    return ThreadedReplicas()
