"""Model parallelism: consecutive blocks on consecutive devices, one process a device, micro-batches in a pipeline."""

from abc import ABC
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from pydantic import PositiveInt, model_validator

from parbench.errors import Unsupported
from parbench.models.stages import Stage, cut_into_stages
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, require_equal_parts
from parbench.system.devices import Devices

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup

    from parbench.data.batches import Batch
    from parbench.training.generation import Mark
    from parbench.training.pipeline import Pipeline
    from parbench.training.workload import Workload

Schedule = Literal["naive", "gpipe", "1f1b", "interleaved_1f1b", "interleaved_zero_bubble", "zbv", "dualpipev"]

INTERLEAVED = ("interleaved_1f1b", "interleaved_zero_bubble")
V_SHAPED = ("zbv", "dualpipev")
ZERO_BUBBLE = ("interleaved_zero_bubble", *V_SHAPED)


class PipelineOptions(Options):
    """How a batch goes through the stages, in `micro_batches` equal parts.

    `naive` sends it whole, so that one stage works at a time. `gpipe` runs all forward passes, then all backward
    passes (Huang et al. 2019); `1f1b` alternates them, which keeps fewer activations (Narayanan et al. 2019).
    `interleaved_1f1b` gives each rank `stages_per_rank` stages (Narayanan et al. 2021). The others split the backward
    pass into two, and fill the bubble with the second: `interleaved_zero_bubble` and `zbv` (Qi et al. 2023, 2024),
    `dualpipev` (DeepSeek-AI 2024); the last two give each rank the stages r and 2p-1-r. Where `micro_batches` is left
    open, there are 4, or as many as the schedule needs on so many ranks.
    """

    schedule: Schedule = "1f1b"
    micro_batches: PositiveInt | None = None
    stages_per_rank: PositiveInt | None = None

    @model_validator(mode="after")
    def _naive_means_one(self) -> Self:
        if self.schedule == "naive" and self.micro_batches not in (None, 1):
            raise ValueError("schedule naive has one micro-batch; leave micro_batches out, or choose gpipe or 1f1b")
        return self

    @model_validator(mode="after")
    def _only_interleaving_chooses_its_stages(self) -> Self:
        if self.stages_per_rank is not None and self.schedule not in INTERLEAVED:
            fixed = 2 if self.schedule in V_SHAPED else 1
            raise ValueError(f"schedule {self.schedule} has {fixed} stages per rank; leave stages_per_rank out")
        return self

    def parts(self, ranks: int) -> int:
        """The number of micro-batches on so many ranks."""
        return 1 if self.schedule == "naive" else self.micro_batches or max(4, self.fewest_parts(ranks))

    def fewest_parts(self, ranks: int) -> int:
        """How many micro-batches the schedule needs at least."""
        return {"naive": 1, "gpipe": 1, "dualpipev": ranks * self.stages_each()}.get(self.schedule, ranks)

    def stages_each(self) -> int:
        """The number of stages of a rank."""
        return self.stages_per_rank or 2 if self.schedule in (*INTERLEAVED, *V_SHAPED) else 1

    def stages_of(self, rank: int, ranks: int) -> list[int]:
        """The numbers of a rank's stages, in the order of the pipeline."""
        if self.schedule in V_SHAPED:
            return [rank, 2 * ranks - 1 - rank]
        return [rank + ranks * turn for turn in range(self.stages_each())]

    def bubble(self, ranks: int, workload: WorkloadSpec) -> float | None:
        """The share of time that the schedule leaves stages idle, if they cost the same and messages nothing.

        (p-1)/(m+p-1) for p ranks and m micro-batches; v stages a rank make v micro-steps of each micro-batch
        (Narayanan et al. 2021, section 2.2). Forward passes alone wait as long as with backward passes. If a forward
        pass takes as long as either half of a backward one, ZB1P, which torch interleaves, waits for p-1 of 3m of
        them, and ZBV not at all (Qi et al. 2024, "Pipeline Parallelism with Controllable Memory"). It is not known
        of DualPipeV, and of tokens that come round.
        """
        if workload.phase == "generate" or self.schedule == "dualpipev":
            return None
        if self.schedule == "zbv":
            return 0.0
        passes = 3 if self.schedule == "interleaved_zero_bubble" else 1
        return (ranks - 1) / (passes * self.stages_each() * self.parts(ranks) + ranks - 1)


P = TypeVar("P", bound=PipelineOptions)


class Pipelined(Strategy[P], ABC):
    """What strategies with a pipeline share: stages, a schedule that owns forward and backward, and a step of it."""

    pipeline: "Pipeline"

    def build_stages(self, build: "Callable[[Stage], nn.Module]", rank: int, ranks: int) -> "dict[int, nn.Module]":
        """The stages of one of `ranks` ranks, by number; together they are this rank's model."""
        from torch import nn

        plan = plan_stages(self.options, self.workload.spec, ranks)
        modules = {index: build(plan[index]) for index in self.options.stages_of(rank, ranks)}
        self.model = nn.ModuleList(modules.values())
        return modules

    def connect(self, modules: "dict[int, nn.Module]", ranks: int, group: "ProcessGroup | None") -> None:
        """Puts this rank's stages under the schedule, with the others of `group`."""
        from parbench.training.pipeline import Pipeline

        self.pipeline = Pipeline(
            self.options.schedule,
            modules,
            stages=ranks * self.options.stages_each(),
            micro_batches=self.options.parts(ranks),
            device=self.workload.device,
            group=group,
            scaled=self.scaled,
        )

    def scaled(self, loss: "Tensor") -> "Tensor":
        """What the backward pass starts from: this part's share of the step."""
        if not self.workload.trains:
            return loss
        return self.updates.scaled(loss / self.workload.spec.gradient_accumulation)

    def step(self, batch: "Batch") -> "Tensor | None":
        """One optimizer step; the loss comes out of the last stage."""
        import torch

        parts = batch.parts(self.workload.spec.gradient_accumulation)
        losses = [loss for part in parts if (loss := self.pipeline.train(part)) is not None]
        self.updates.apply()
        return torch.stack(losses).mean() if losses else None

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss without a backward pass, out of the last stage."""
        return self.pipeline.evaluate(batch)

    def generate(self, prompts: "Tensor", new_tokens: int, mark: "Mark") -> "Tensor | None":
        """Micro-batches of sequences follow each other through the stages, token by token."""
        return self.pipeline.generate(prompts, new_tokens, mark)

    def compute_s(self) -> float | None:
        """What this rank's stages have computed for; the rest of the time they waited."""
        return self.pipeline.clock.seconds()


class ModelParallel(Pipelined[PipelineOptions]):
    """Each rank builds only the blocks of its stages; the schedule owns forward and backward."""

    name = "model_parallel"
    options_type = PipelineOptions
    imports = ("torch.distributed.pipelining", "parbench.training.pipeline")

    @classmethod
    def layout(cls, options: PipelineOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process a device. Every rank sees the whole batch; raises `Unsupported` where blocks or batch run out."""
        stages = plan_stages(options, workload, devices.count)
        require_equal_parts(workload, options.parts(devices.count), "micro-batches")
        return Layout(
            processes=devices.count, note=describe(options, stages), bubble=options.bubble(devices.count, workload)
        )

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds this rank's stages and the schedule that drives them."""
        self.workload = workload

        def build(stage: Stage) -> "nn.Module":
            return workload.model(job, stage.blocks, ends=(stage.embed, stage.head))

        modules = self.build_stages(build, context.rank, context.ranks)
        if workload.trains:
            self.updates = workload.updates(self.model.parameters(), job, group=context.group)
        self.connect(modules, context.ranks, context.group)


def plan_stages(options: PipelineOptions, workload: WorkloadSpec, ranks: int) -> list[Stage]:
    """The stages of the pipeline, balanced by what their parts cost; raises `Unsupported` where it cannot be made."""
    family = workload.model
    if reason := family.stage_refusal():
        raise Unsupported(reason)
    if workload.phase != "train" and options.stages_each() > 1:
        raise Unsupported(f"schedule {options.schedule} is made of forward and backward passes; use gpipe or 1f1b")
    stages = ranks * options.stages_each()
    if family.n_blocks + 1 < stages:
        raise Unsupported(f"{family.n_blocks} blocks and the head are too few for {stages} stages")
    _require_enough_micro_batches(options, ranks)
    if workload.compile and options.schedule in ZERO_BUBBLE:
        raise Unsupported(f"torch cannot split the backward pass of compiled stages, as {options.schedule} does")
    return cut_into_stages(family.costs(workload.vocab_size, workload.seq_len), stages)


def _require_enough_micro_batches(options: PipelineOptions, ranks: int) -> None:
    parts, needed, field = options.parts(ranks), options.fewest_parts(ranks), "options.micro_batches"
    if parts < needed:
        what = f"ranks ({ranks})" if needed == ranks else f"stages ({needed})"
        raise Unsupported(
            f"schedule {options.schedule} needs at least as many micro-batches ({parts}) as {what}", field=field
        )
    if options.schedule in INTERLEAVED and parts % (parts // ranks):
        raise Unsupported(
            f"schedule {options.schedule} on {ranks} ranks goes in {parts // ranks} equal rounds, into which {parts} "
            "micro-batches do not divide",
            field=field,
        )


def describe(options: PipelineOptions, stages: Sequence[Stage]) -> str:
    """The stages of each rank and their shares of the work, and what the batch is cut into."""
    ranks = len(stages) // options.stages_each()
    parts = options.parts(ranks)
    placed = " | ".join(
        ", ".join(str(stages[index]) for index in options.stages_of(rank, ranks)) for rank in range(ranks)
    )
    return f"{placed}; {parts} micro-batches" if parts > 1 else placed
