"""One device: the reference that every other strategy is compared with."""

from typing import TYPE_CHECKING

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, refuse
from parbench.system.devices import Devices

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from parbench.data.batches import Batch
    from parbench.training.workload import Workload

EAGER_STEPS = 3


class SingleOptions(Options):
    """`cuda_graphs` records a whole training step once and replays it, so that the CPU launches no kernel twice."""

    cuda_graphs: bool = False


class Single(Strategy[SingleOptions]):
    """The whole model in one process on one device; several models are trained one after another."""

    name = "single"
    reference = True
    scales = False
    options_type = SingleOptions
    graph: "torch.cuda.CUDAGraph | None" = None

    @classmethod
    def layout(cls, options: SingleOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """One process; raises `Unsupported` for more than one device."""
        if devices.count != 1:
            raise Unsupported("runs on one device only")
        if options.cuda_graphs:
            if devices.kind != "cuda":
                raise Unsupported("cuda_graphs needs a CUDA device")
            if workload.phase != "train" or workload.precision == "fp16":
                raise Unsupported("cuda_graphs records training steps, whose loss scale must not change (fp16)")
            refuse(workload, gradient_accumulation="cuda_graphs records steps of one backward pass")
            family = workload.model
            if workload.activation_checkpointing and family.draws_random:
                raise Unsupported("cuda_graphs cannot record the state of random numbers, which checkpointing keeps")
        return Layout(processes=1)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """For a graph, the optimizer keeps its step counts on the device."""
        super().setup(workload, job, context)
        if self.options.cuda_graphs:
            import torch

            counts_steps = workload.spec.optimizer.name != "sgd"
            self.updates = workload.updates(self.model.parameters(), job, capturable=counts_steps or None)
            self.steps, self.aside = 0, torch.cuda.Stream()

    def step(self, batch: "Batch") -> "Tensor | None":
        """The first steps run as they are, then one is recorded, and replayed from there on."""
        if not self.options.cuda_graphs:
            return super().step(batch)
        self.steps += 1
        if self.steps <= EAGER_STEPS:
            return self._aside(batch)
        if self.graph is None:
            self._record(batch)
        return self._replay(batch)

    def _aside(self, batch: "Batch") -> "Tensor | None":
        """A step on a stream of its own, as must be before recording."""
        import torch

        self.aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.aside):
            loss = super().step(batch)
        torch.cuda.current_stream().wait_stream(self.aside)
        return loss

    def _record(self, batch: "Batch") -> None:
        """Records a step on buffers that later batches are copied into; recording computes nothing."""
        import torch

        self.inputs = type(batch)(*(part.clone() for part in batch))
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            loss = self.loss(self.inputs)
            loss.backward()
            self.updates.optimizer.step()
        self.recorded_loss = loss.detach()

    def _replay(self, batch: "Batch") -> "Tensor":
        if self.graph is None:
            raise RuntimeError("no step has been recorded")
        for buffer, part in zip(self.inputs, batch, strict=True):
            buffer.copy_(part, non_blocking=True)
        self.graph.replay()
        # The next replay writes over it.
        return self.recorded_loss.clone()

    def close(self) -> None:
        """Lets go of the graph's memory."""
        self.graph = None
