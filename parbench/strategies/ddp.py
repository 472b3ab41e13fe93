"""DistributedDataParallel: a replica a process, gradients averaged while the backward pass still runs."""

from typing import TYPE_CHECKING

from parbench.devices import Devices
from parbench.scenario import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, require_equal_parts

if TYPE_CHECKING:
    from torch import nn


class DDP(Strategy[Options]):
    """Every rank holds the model and a shard of the batch; gloo on CPU, NCCL on CUDA.

    Method: Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training".
    """

    name = "ddp"

    @classmethod
    def layout(cls, options: Options, workload: WorkloadSpec, devices: Devices) -> Layout:  # noqa: ARG003
        """A process and a data shard for each device."""
        require_equal_parts(workload, devices.count, "data shards")
        return Layout(processes=devices.count, data_shards=devices.count)

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":
        """Gradients are views of the buckets that are reduced, so none is copied. There are no buffers to send."""
        from torch.nn.parallel import DistributedDataParallel

        on_cuda = context.devices[0].type == "cuda"
        return DistributedDataParallel(
            model,
            device_ids=list(context.devices) if on_cuda else None,
            process_group=context.group,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
