"""Model parallelism: consecutive blocks on consecutive devices, one process a stage, micro-batches in a pipeline."""

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import PositiveInt, model_validator

from parbench.devices import Devices
from parbench.errors import Unsupported
from parbench.scenario import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, require_equal_parts

if TYPE_CHECKING:
    from torch import Tensor

    from parbench.training.batches import Batch
    from parbench.training.workload import Workload


class ModelParallelOptions(Options):
    """`naive` sends the batch through as one micro-batch, so that one stage works at a time.

    `gpipe` runs all forward passes, then all backward passes (Huang et al. 2019); `1f1b` alternates them, which keeps
    fewer activations (Narayanan et al. 2019). `micro_batches` is how many parts the batch is cut into.
    """

    schedule: Literal["naive", "gpipe", "1f1b"] = "1f1b"
    micro_batches: PositiveInt | None = None

    @model_validator(mode="after")
    def _naive_means_one(self) -> Self:
        if self.schedule == "naive" and self.micro_batches not in (None, 1):
            raise ValueError("schedule naive has one micro-batch; leave micro_batches out, or choose gpipe or 1f1b")
        return self

    def parts(self) -> int:
        """The number of micro-batches: 1 for `naive`, else as given, else 4."""
        return 1 if self.schedule == "naive" else self.micro_batches or 4


class ModelParallel(Strategy[ModelParallelOptions]):
    """Each stage builds only its own blocks; the schedule owns forward and backward."""

    name = "model_parallel"
    options_type = ModelParallelOptions
    imports = ("torch.distributed.pipelining",)

    @classmethod
    def layout(cls, options: ModelParallelOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process a stage. Every rank sees the whole batch; raises `Unsupported` where blocks or batch run out."""
        blocks = getattr(workload.model, "n_blocks", 0)
        if blocks < devices.count:
            raise Unsupported(f"{blocks} blocks are too few for {devices.count} stages")
        require_equal_parts(workload, options.parts(), "micro-batches")
        if options.schedule == "1f1b" and options.parts() < devices.count:
            raise Unsupported(
                f"schedule 1f1b needs at least as many micro-batches ({options.parts()}) as stages ({devices.count})",
                field="options.micro_batches",
            )
        return Layout(processes=devices.count)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds this rank's stage and the schedule that drives it."""
        from torch.distributed import pipelining

        from parbench.training.workload import next_token_loss

        self.first, self.last = context.rank == 0, context.rank == context.ranks - 1
        self.model = workload.model(job, stage_blocks(workload.family.n_blocks, context.rank, context.ranks))
        self.optimizer = workload.optimizer(self.model.parameters(), job)
        stage = pipelining.PipelineStage(
            self.model, context.rank, context.ranks, context.devices[0], group=context.group
        )
        schedule = pipelining.Schedule1F1B if self.options.schedule == "1f1b" else pipelining.ScheduleGPipe
        self.schedule = schedule(stage, n_microbatches=self.options.parts(), loss_fn=next_token_loss)

    def step(self, batch: "Batch") -> "Tensor | None":
        """One optimizer step; the loss comes out of the last stage."""
        loss = self._run(self.schedule.step, batch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss without a backward pass, out of the last stage."""
        return self._run(self.schedule.eval, batch)

    def _run(self, run: Any, batch: "Batch") -> "Tensor | None":
        import torch

        losses: list[Tensor] = []
        inputs = (batch.inputs,) if self.first else ()
        outcome = {"target": batch.targets, "losses": losses} if self.last else {}
        run(*inputs, **outcome, return_outputs=False)
        return torch.stack(losses).mean().detach() if self.last else None


def stage_blocks(blocks: int, stage: int, stages: int) -> range:
    """The consecutive blocks of a stage; stage sizes differ by one at most, and the earlier stages are the larger.

    The last stage also has the head, so it is the one to be spared a block.
    """
    size, larger = divmod(blocks, stages)
    start = stage * size + min(stage, larger)
    return range(start, start + size + (stage < larger))
