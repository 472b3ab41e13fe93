"""One device: the reference that every other strategy is compared with."""

from functools import partial
from typing import TYPE_CHECKING, Any

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, refuse
from parbench.system.devices import Devices

if TYPE_CHECKING:
    from torch import Tensor

    from parbench.data.batches import Batch
    from parbench.training.generation import Mark, StaticDecoder
    from parbench.training.graphs import Replayed
    from parbench.training.workload import Workload


class SingleOptions(Options):
    """`cuda_graphs` captures a step once and replays it, so that the CPU launches one graph instead of every kernel.

    It is a whole training step or, in phase `generate`, the step of one token; prompts are taken in without a graph.
    """

    cuda_graphs: bool = False


class Single(Strategy[SingleOptions]):
    """The whole model in one process on one device; several models are trained one after another."""

    name = "single"
    reference = True
    scales = False
    options_type = SingleOptions
    replayed: "Replayed[Any] | None" = None
    """The step that is captured and replayed, once the first one has come."""
    inputs: "Batch"
    decoder: "StaticDecoder"

    @classmethod
    def layout(cls, options: SingleOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """One process; raises `Unsupported` for more than one device."""
        if devices.count != 1:
            raise Unsupported("runs on one device only")
        if options.cuda_graphs:
            _require_graphs(workload, devices)
        return Layout(processes=1)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Where a training step is captured, the optimizer keeps its step counts on the device."""
        super().setup(workload, job, context)
        if self.options.cuda_graphs and workload.trains:
            counts_steps = workload.spec.optimizer.name != "sgd"
            self.updates = workload.updates(self.model.parameters(), job, capturable=counts_steps or None)

    def step(self, batch: "Batch") -> "Tensor | None":
        """A step; with a graph, on tensors into which each batch is copied."""
        if not self.options.cuda_graphs:
            return super().step(batch)
        if self.replayed is None:
            from parbench.training.graphs import Replayed

            self.inputs = type(batch)(*(part.clone() for part in batch))
            self.replayed = Replayed(partial(super().step, self.inputs))
        for buffer, part in zip(self.inputs, batch, strict=True):
            buffer.copy_(part, non_blocking=True)
        loss: Tensor = self.replayed()
        # A copy, because the next replay overwrites the loss.
        return loss.clone()

    def generate(self, prompts: "Tensor", new_tokens: int, mark: "Mark") -> "Tensor | None":
        """Decodes greedily; with a graph, all tokens but the first by replays."""
        if not self.options.cuda_graphs:
            return super().generate(prompts, new_tokens, mark)
        if self.replayed is None:
            from parbench.training.generation import StaticDecoder
            from parbench.training.graphs import Replayed

            self.decoder = StaticDecoder(self.model, prompts.shape[1] + new_tokens)
            self.replayed = Replayed(self.decoder.step)
        return self.decoder.decode(prompts, mark, self.replayed)

    def close(self) -> None:
        """Frees the graph's memory."""
        self.replayed = None


def _require_graphs(workload: WorkloadSpec, devices: Devices) -> None:
    """Raises `Unsupported` where no step of the workload can be captured and replayed."""
    if devices.kind != "cuda":
        raise Unsupported("cuda_graphs needs a CUDA device")
    family = workload.model
    if workload.phase == "score":
        raise Unsupported("cuda_graphs captures training steps and the steps of new tokens, and not phase score")
    if reason := family.changing_sizes(workload.phase):
        raise Unsupported(f"cuda_graphs replays steps of fixed shapes, and {reason}")
    if workload.phase == "generate":
        return
    if workload.precision == "fp16":
        raise Unsupported("cuda_graphs captures a training step, whose loss scale must not change: no fp16")
    refuse(workload, gradient_accumulation="cuda_graphs captures steps of one backward pass")
    if workload.activation_checkpointing and family.draws_random:
        raise Unsupported(
            "cuda_graphs cannot capture the state of random numbers, which activation_checkpointing restores"
        )
    if workload.activation_checkpointing == "offloaded":
        raise Unsupported(
            "cuda_graphs cannot capture memory of the host, as activation_checkpointing: offloaded takes it"
        )
