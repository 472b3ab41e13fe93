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
    """`cuda_graphs` captures a whole training step once and replays it, so that the CPU launches one graph a step."""

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
                raise Unsupported(
                    "cuda_graphs captures a training step, whose loss scale must not change: no fp16, no other phase"
                )
            refuse(workload, gradient_accumulation="cuda_graphs captures steps of one backward pass")
            family = workload.model
            if workload.activation_checkpointing and family.draws_random:
                raise Unsupported(
                    "cuda_graphs cannot capture the state of random numbers, which activation_checkpointing restores"
                )
        return Layout(processes=1)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """With a graph, the optimizer keeps its step counts on the device."""
        super().setup(workload, job, context)
        if self.options.cuda_graphs:
            import torch

            counts_steps = workload.spec.optimizer.name != "sgd"
            self.updates = workload.updates(self.model.parameters(), job, capturable=counts_steps or None)
            self.steps, self.side_stream = 0, torch.cuda.Stream()

    def step(self, batch: "Batch") -> "Tensor | None":
        """Runs the first steps eagerly, then captures one, and replays it from there on."""
        if not self.options.cuda_graphs:
            return super().step(batch)
        self.steps += 1
        if self.steps <= EAGER_STEPS:
            return self._step_on_side_stream(batch)
        if self.graph is None:
            self._capture(batch)
        return self._replay(batch)

    def _step_on_side_stream(self, batch: "Batch") -> "Tensor | None":
        """A step on a stream of its own, as torch requires before a capture."""
        import torch

        self.side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side_stream):
            loss = super().step(batch)
        torch.cuda.current_stream().wait_stream(self.side_stream)
        return loss

    def _capture(self, batch: "Batch") -> None:
        """Captures a step on buffers into which later batches are copied. A capture computes nothing."""
        import torch

        self.inputs = type(batch)(*(part.clone() for part in batch))
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            loss = self.loss(self.inputs)
            loss.backward()
            self.updates.optimizer.step()
        self.captured_loss = loss.detach()

    def _replay(self, batch: "Batch") -> "Tensor":
        if self.graph is None:
            raise RuntimeError("no step has been captured")
        for buffer, part in zip(self.inputs, batch, strict=True):
            buffer.copy_(part, non_blocking=True)
        self.graph.replay()
        # A copy, because the next replay overwrites the loss.
        return self.captured_loss.clone()

    def close(self) -> None:
        """Frees the graph's memory."""
        self.graph = None
