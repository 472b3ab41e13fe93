"""Local SGD: every rank steps alone, and parameters are averaged now and then."""

from typing import TYPE_CHECKING

from pydantic import NonNegativeInt, PositiveInt

from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, line_of_devices, require_equal_parts
from parbench.system.devices import Devices

if TYPE_CHECKING:
    from torch import Tensor

    from parbench.data.batches import Batch
    from parbench.training.workload import Workload


class LocalSGDOptions(Options):
    """Parameters are averaged every `period` steps, in the first `warmup_steps` steps after each.

    A window holds whole periods, and so at least one.
    """

    period: PositiveInt = 8
    warmup_steps: NonNegativeInt = 0


class LocalSGD(Strategy[LocalSGDOptions]):
    """A model, an optimizer and a shard of the batch in each rank; averaged every `period` steps.

    Method: Stich 2019, "Local SGD Converges Fast and Communicates Little". Not what one device computes: between
    averages each rank follows the gradient of its own shard.
    """

    name = "local_sgd"
    exact = False
    phases = ("train",)
    options_type = LocalSGDOptions
    imports = ("torch.distributed.algorithms.model_averaging.utils",)

    @classmethod
    def layout(cls, options: LocalSGDOptions, workload: WorkloadSpec, devices: Devices) -> Layout:  # noqa: ARG003
        """A process and a data shard for each device."""
        require_equal_parts(workload, devices.count, "data shards")
        return Layout(processes=devices.count, data_shards=devices.count)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Every rank starts from the same parameters: they have the same seed."""
        super().setup(workload, job, context)
        self.group = line_of_devices(context).get_group()
        self.steps, self.apart = 0, False

    def step(self, batch: "Batch") -> "Tensor | None":
        """A step on this rank's shard and, when it is time, the average of all ranks' parameters."""
        loss = super().step(batch)
        self.steps, self.apart = self.steps + 1, True
        if self.steps <= self.options.warmup_steps or self.steps % self.options.period == 0:
            self._average()
        return loss

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss of one model: whatever the ranks have learnt since the last average is averaged first."""
        if self.apart:
            self._average()
        return super().evaluate(batch)

    def _average(self) -> None:
        from torch.distributed.algorithms.model_averaging.utils import average_parameters

        average_parameters(self.model.parameters(), self.group)
        self._put_weights_in_order()
        self.apart = False

    def _put_weights_in_order(self) -> None:
        """cuDNN's recurrent layers want their weights in one piece, and averaging has left them in another order."""
        from torch import nn

        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()

    def cycle(self) -> int:
        """Parameters are averaged once in a period."""
        return self.options.period

    def settling_steps(self) -> int:
        """They are averaged in every one of the first steps."""
        return self.options.warmup_steps
