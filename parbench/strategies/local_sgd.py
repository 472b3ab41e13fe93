"""Local SGD: every rank steps alone, and parameters are averaged every few steps."""

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
    """Parameters are averaged every `period` steps; during the first `warmup_steps` steps, after each step.

    A window has whole periods, at least one.
    """

    period: PositiveInt = 8
    warmup_steps: NonNegativeInt = 0


class LocalSGD(Strategy[LocalSGDOptions]):
    """A model, an optimizer and a shard of the batch in each rank; averaged every `period` steps.

    Method: Stich 2019, "Local SGD Converges Fast and Communicates Little". It does not compute what one
    device computes: between averages, each rank follows the gradient of its own shard.
    """

    name = "local_sgd"
    gloo_suffices = True
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
        """Every rank starts with the same parameters, from the same seed."""
        super().setup(workload, job, context)
        self.group = line_of_devices(context).get_group()
        self.steps, self.diverged = 0, False

    def step(self, batch: "Batch") -> "Tensor | None":
        """A step on this rank's shard; when a period is over, averages the parameters of all ranks."""
        loss = super().step(batch)
        self.steps, self.diverged = self.steps + 1, True
        if self.steps <= self.options.warmup_steps or self.steps % self.options.period == 0:
            self._average()
        return loss

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss of the average model: ranks that have stepped since the last average are averaged first."""
        if self.diverged:
            self._average()
        return super().evaluate(batch)

    def _average(self) -> None:
        from torch.distributed.algorithms.model_averaging.utils import average_parameters

        average_parameters(self.model.parameters(), self.group)
        self._flatten_weights()
        self.diverged = False

    def _flatten_weights(self) -> None:
        """cuDNN's recurrent layers need their weights in one piece of memory, which averaging has replaced."""
        from torch import nn

        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()

    def cycle(self) -> int:
        """One period, in which parameters are averaged once."""
        return self.options.period

    def settling_steps(self) -> int:
        """The first steps, after each of which parameters are averaged."""
        return self.options.warmup_steps
