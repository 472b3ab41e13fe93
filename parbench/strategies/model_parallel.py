"""Model parallelism: consecutive blocks on consecutive devices, one process a device, micro-batches in a pipeline."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import PositiveInt, model_validator

from parbench.errors import Unsupported
from parbench.models.stages import Stage, cut_into_stages
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, StepPart, Strategy, refuse, require_equal_parts
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup

    from parbench.data.batches import Batch
    from parbench.training.generation import Mark
    from parbench.training.updates import Updates
    from parbench.training.workload import Workload

Schedule = Literal["naive", "gpipe", "1f1b", "interleaved_1f1b", "interleaved_zero_bubble", "zbv", "dualpipev"]

INTERLEAVED = ("interleaved_1f1b", "interleaved_zero_bubble")
V_SHAPED = ("zbv", "dualpipev")
ZERO_BUBBLE = ("interleaved_zero_bubble", *V_SHAPED)


class PipelineOptions(Options):
    """How a batch passes through the stages, in `micro_batches` equal parts.

    `naive` sends it whole, so that one stage works at a time. `gpipe` runs all forward passes, then all backward
    passes (Huang et al. 2019); `1f1b` alternates them, which keeps fewer activations (Narayanan et al. 2019).
    `interleaved_1f1b` gives each rank `stages_per_rank` stages (Narayanan et al. 2021). The others split the backward
    pass into two, and fill the bubble with the second part: `interleaved_zero_bubble` and `zbv` (Qi et al. 2023, 2024),
    `dualpipev` (DeepSeek-AI 2024); the last two give each rank the stages r and 2p-1-r. Without
    `micro_batches` there are 4, or as many as the schedule needs; to generate, as few as keep every stage at work.
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

    def parts(self, ranks: int, workload: WorkloadSpec) -> int:
        """The number of micro-batches on `ranks` ranks."""
        if self.schedule == "naive":
            return 1
        if workload.phase == "generate":
            return self.micro_batches or _fewest_equal_parts(workload.global_batch, ranks)
        return self.micro_batches or max(4, self.fewest_parts(ranks))

    def fewest_parts(self, ranks: int) -> int:
        """The smallest number of micro-batches that the schedule allows."""
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
        """The share of time that the schedule leaves stages idle, if all cost the same and messages cost nothing.

        (p-1)/(m+p-1) for p ranks and m micro-batches; v stages a rank make v micro-steps of each micro-batch
        (Narayanan et al. 2021, section 2.2). Forward passes alone wait as long as with backward passes. If a forward
        pass takes as long as either half of a backward one, ZB1P, which torch interleaves, waits for p-1 of 3m of
        them, and ZBV not at all (Qi et al. 2024, "Pipeline Parallelism with Controllable Memory"). None
        where it is not known: for DualPipeV and for generation.
        """
        if workload.phase == "generate" or self.schedule == "dualpipev":
            return None
        if self.schedule == "zbv":
            return 0.0
        passes = 3 if self.schedule == "interleaved_zero_bubble" else 1
        return (ranks - 1) / (passes * self.stages_each() * self.parts(ranks, workload) + ranks - 1)


class Line(NamedTuple):
    """The ranks over which one model's stages are spread: their group, how many they are, and which one this is."""

    group: "ProcessGroup | None"
    ranks: int
    rank: int


class StagedModel:
    """A rank's stages of one model and the schedule that drives them; each rank builds its own stages only.

    `build` builds one stage. `updates` are set before the first training step.
    """

    updates: "Updates"

    def __init__(
        self, options: PipelineOptions, workload: "Workload", line: Line, build: "Callable[[Stage], nn.Module]"
    ) -> None:
        from torch import nn

        from parbench.training.pipeline import Pipeline

        plan = plan_stages(options, workload.spec, line.ranks)
        modules = {index: build(plan[index]) for index in options.stages_of(line.rank, line.ranks)}
        self.workload = workload
        self.model = nn.ModuleList(modules.values())
        self.pipeline = Pipeline(
            options.schedule,
            modules,
            stages=line.ranks * options.stages_each(),
            micro_batches=options.parts(line.ranks, workload.spec),
            device=workload.device,
            group=line.group,
            loss=workload.loss,
            scaled=self._scale,
        )

    def step(self, batch: "Batch") -> "Tensor | None":
        """One optimizer step. The mean loss, in the rank of the last stage; None elsewhere."""
        import torch

        parts = batch.parts(self.workload.spec.gradient_accumulation)
        losses = [loss for part in parts if (loss := self.pipeline.train(part)) is not None]
        self.updates.apply()
        return torch.stack(losses).mean() if losses else None

    def waiting_s(self) -> float:
        """Seconds that this rank has waited for other stages so far."""
        return self.pipeline.clock.read_seconds()

    def step_parts(self) -> list[StepPart]:
        """The passes of this rank's stages, within the schedule; and the loss and the optimizer."""
        parts = [StepPart(owner, method, part) for owner, method, part in self.pipeline.parts()]
        return [*parts, StepPart(self.updates, "apply", "optimizer")] if self.workload.trains else parts

    def _scale(self, loss: "Tensor") -> "Tensor":
        """What the backward pass starts from: the share of the step that this part of the batch is."""
        if not self.workload.trains:
            return loss
        return self.updates.scaled(loss / self.workload.spec.gradient_accumulation)


class ModelParallel(Strategy[PipelineOptions]):
    """Each rank builds only the blocks of its stages; the schedule owns forward and backward."""

    name = "model_parallel"
    options_type = PipelineOptions
    imports = ("torch.distributed.pipelining", "parbench.training.pipeline")
    staged: StagedModel

    @classmethod
    def layout(cls, options: PipelineOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process a device. Every rank sees the whole batch; raises `Unsupported` where blocks or batch run out."""
        stages = plan_stages(options, workload, devices.count)
        require_equal_parts(workload, options.parts(devices.count, workload), "micro-batches")
        return Layout(
            processes=devices.count,
            micro_batches=options.parts(devices.count, workload),
            note=write_note(options, workload, stages),
            bubble=options.bubble(devices.count, workload),
        )

    @classmethod
    def pieces(
        cls, options: PipelineOptions, workload: WorkloadSpec, layout: Layout, rank: int, outline: Sequence[Outline]
    ) -> list[Piece]:
        """All of each parameter in the rank's stages."""
        own = keep_stages(options, workload, layout.ranks_per_lane, rank, outline)
        return super().pieces(options, workload, layout, rank, own)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds this rank's stages and the schedule that drives them."""
        self.workload = workload
        line = Line(context.group, context.ranks, context.rank)
        self.staged = StagedModel(self.options, workload, line, lambda stage: workload.model(job, stage))
        self.model = self.staged.model
        if workload.trains:
            self.updates = workload.updates(self.model.parameters(), job, group=context.group)
            self.staged.updates = self.updates

    def step(self, batch: "Batch") -> "Tensor | None":
        """One optimizer step; the loss comes out of the last stage."""
        return self.staged.step(batch)

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss without a backward pass, out of the last stage."""
        return self.staged.pipeline.evaluate(batch)

    def generate(self, prompts: "Tensor", new_tokens: int, mark: "Mark") -> "Tensor | None":
        """Micro-batches of sequences follow each other through the stages, token by token."""
        return self.staged.pipeline.generate(prompts, new_tokens, mark)

    def step_parts(self) -> list[StepPart]:
        """The schedule, and what it calls."""
        return self.staged.step_parts()

    def waiting_s(self) -> float | None:
        """The time in which the schedule had nothing to do for this rank's stages."""
        return self.staged.waiting_s()


def plan_stages(options: PipelineOptions, workload: WorkloadSpec, ranks: int) -> list[Stage]:
    """The stages of the pipeline, balanced by what their parts cost; raises `Unsupported` where it cannot be made."""
    refuse(workload, loss_chunks="a micro-batch is a chunk already; leave loss_chunks out, or take more micro_batches")
    family = workload.model
    if reason := family.stage_refusal():
        raise Unsupported(reason)
    if workload.phase != "train" and options.stages_each() > 1:
        raise Unsupported(f"schedule {options.schedule} is made of forward and backward passes; use gpipe or 1f1b")
    stages = ranks * options.stages_each()
    if family.n_blocks + 1 < stages:
        raise Unsupported(f"{family.n_blocks} blocks and the head are too few for {stages} stages")
    _require_enough_micro_batches(options, workload, ranks)
    if workload.compile and options.schedule in ZERO_BUBBLE:
        raise Unsupported(f"torch cannot split the backward pass of compiled stages, as {options.schedule} does")
    if workload.activation_checkpointing == "selective" and options.schedule in ZERO_BUBBLE:
        raise Unsupported(
            f"schedule {options.schedule} passes backwards through a block twice, and what activation_checkpointing: "
            "selective keeps is gone after the first time; use full or {every: 2}"
        )
    return list(_cut(family.costs(workload.vocab_size, workload.seq_len), stages))


@lru_cache(maxsize=256)
def _cut(costs: tuple[float, ...], stages: int) -> tuple[Stage, ...]:
    """The stages of parts with these costs. A planner asks for the same ones thousands of times."""
    return tuple(cut_into_stages(costs, stages))


def keep_stages(
    options: PipelineOptions, workload: WorkloadSpec, ranks: int, rank: int, outline: Sequence[Outline]
) -> list[Outline]:
    """The parameters of a rank's stages."""
    stages = plan_stages(options, workload, ranks)
    own = [stages[number] for number in options.stages_of(rank, ranks)]

    def is_own(name: str) -> bool:
        part, _, path = name.partition(".")
        if part == "blocks":
            return any(int(path.partition(".")[0]) in stage.blocks for stage in own)
        return any(stage.embed if part == "embed" else stage.head for stage in own)

    return [parameter for parameter in outline if is_own(parameter.name)]


def _fewest_equal_parts(sequences: int, ranks: int) -> int:
    """The fewest equal micro-batches of so many sequences of which every rank has one; one a sequence at most.

    A micro-batch comes back to the first stage before its next token starts: more of them than ranks overlap no more.
    """
    return next((parts for parts in range(ranks, sequences) if sequences % parts == 0), sequences)


def _require_enough_micro_batches(options: PipelineOptions, workload: WorkloadSpec, ranks: int) -> None:
    parts, needed, field = options.parts(ranks, workload), options.fewest_parts(ranks), "options.micro_batches"
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


def write_note(options: PipelineOptions, workload: WorkloadSpec, stages: Sequence[Stage]) -> str:
    """The stages of each rank with their shares of the work, and the number of micro-batches."""
    ranks = len(stages) // options.stages_each()
    parts = options.parts(ranks, workload)
    places = " | ".join(
        ", ".join(str(stages[index]) for index in options.stages_of(rank, ranks)) for rank in range(ranks)
    )
    return f"{places}; {parts} micro-batches" if parts > 1 else places
