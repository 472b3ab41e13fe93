"""Data, context, pipeline and tensor parallelism at once, over a mesh of devices."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import Context, Layout, StepPart, Strategy, require_equal_parts
from parbench.strategies.context_parallel import (
    ContextParallelOptions,
    Method,
    cut_sequences,
    require_context_parts,
    take_positions,
)
from parbench.strategies.ddp import DDPOptions, wrap_in_ddp
from parbench.strategies.fsdp import FSDPOptions, make_sharder, shard_rows
from parbench.strategies.model_parallel import (
    ZERO_BUBBLE,
    Line,
    PipelineOptions,
    StagedModel,
    keep_stages,
    plan_stages,
    write_note,
)
from parbench.strategies.tensor_parallel import (
    Splitter,
    TensorParallelOptions,
    require_tensor_plan,
    split_loss_context,
    split_matrices,
)
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

    from parbench.data.batches import Batch
    from parbench.training.workload import Workload

Degree = PositiveInt | Literal["auto"]


class HybridOptions(PipelineOptions):
    """The degrees of parallelism: into how many parts `data`, layers (`pipeline`) and matrices (`tensor`) are cut.

    An `auto` makes a cell for each degree that the workload supports and that, times the others, gives the number of
    devices. `context` is the degree for sequences, whose positions meet by `context_method`. `data_parallel` says how
    ranks with the same part of the model keep it equal, over data and context. The other options are those of
    `model_parallel` and `tensor_parallel`.
    """

    data: Degree = "auto"
    pipeline: Degree = "auto"
    tensor: Degree = "auto"
    data_parallel: Literal["ddp", "fsdp"] = "ddp"
    sequence_parallel: bool = False
    context: PositiveInt = 1
    context_method: Method = "ring"
    later_options: ClassVar[frozenset[str]] = frozenset({"context", "context_method"})

    def degrees(self) -> tuple[int, int, int]:
        """The degrees of data, pipeline and tensor parallelism; `auto` counts as 1."""
        data, pipeline, tensor = (
            1 if degree == "auto" else degree for degree in (self.data, self.pipeline, self.tensor)
        )
        return data, pipeline, tensor

    def replicas(self) -> int:
        """How many ranks have the same part of the model, each for a part of the batch or of its sequences."""
        return self.degrees()[0] * self.context

    def tensor_options(self) -> TensorParallelOptions:
        """The options of the tensor axis."""
        return TensorParallelOptions(sequence_parallel=self.sequence_parallel)


class Hybrid(Strategy[HybridOptions]):
    """Tensor parallelism between neighbours, then pipeline stages or parts of sequences, data parallelism outermost.

    The more two ranks communicate, the closer they are to each other (Narayanan et al. 2021, "Efficient Large-Scale
    Language Model Training on GPU Clusters Using Megatron-LM").
    """

    name = "hybrid"
    phases = ("train", "score")
    options_type = HybridOptions
    imports = (
        "parbench.training.pipeline",
        "parbench.training.mesh",
        "torch.distributed.tensor.parallel",
        "torch.distributed.fsdp",
    )
    staged: StagedModel | None = None
    """The stages of this rank where the model is cut into stages."""
    positions: "Tensor | None" = None
    """Where this rank's tokens are in their sequences, if these are cut."""

    @classmethod
    def variants(cls, options: HybridOptions, workload: WorkloadSpec, devices: Devices) -> Sequence[HybridOptions]:
        """Every factorisation of the number of devices that has the given degrees and that the workload supports.

        Where none is supported, the first one, which `layout` then refuses with a reason.
        """
        fitting = [
            options.model_copy(update={"data": data, "pipeline": pipeline, "tensor": tensor})
            for data, pipeline, tensor in factorisations(devices.count // options.context)
            if all(
                wish in ("auto", degree)
                for wish, degree in zip(
                    (options.data, options.pipeline, options.tensor), (data, pipeline, tensor), strict=True
                )
            )
        ]
        supported = [each for each in fitting if _is_supported(each, workload, devices)]
        return supported or fitting[:1] or [options]

    @classmethod
    def layout(cls, options: HybridOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process a device: rank = ((shard · context + part of sequences) · pipeline + stage) · tensor + part."""
        data, pipeline, tensor = options.degrees()
        if options.replicas() * pipeline * tensor != devices.count:
            mesh = " × ".join(f"{name} {degree}" for name, degree in _name_degrees(options))
            raise Unsupported(f"a mesh of {mesh} does not have {devices.count} devices")
        if devices.per_node % tensor:
            raise Unsupported(
                f"tensor parallelism of degree {tensor} would reach beyond a node, which has {devices.per_node} devices"
            )
        require_equal_parts(workload, data, "data shards")
        note, bubble, micro_batches = "", None, 1
        if pipeline > 1:
            stages, micro_batches = plan_stages(options, workload, pipeline), options.parts(pipeline, workload)
            require_equal_parts(workload, data * micro_batches, "micro-batches of data shards")
            _require_exchange(options)
            note, bubble = write_note(options, workload, stages), options.bubble(pipeline, workload)
        if tensor > 1:
            own = workload.model_copy(update={"seq_len": workload.seq_len // options.context})
            require_tensor_plan(options.tensor_options(), own, tensor)
        if options.context > 1:
            _require_context(options, workload, devices)
        return Layout(
            processes=devices.count,
            data_shards=data,
            micro_batches=micro_batches,
            note="; ".join(filter(None, (_write_mesh(options, devices), note))),
            bubble=bubble,
        )

    @classmethod
    def pieces(
        cls, options: HybridOptions, workload: WorkloadSpec, layout: Layout, rank: int, outline: Sequence[Outline]
    ) -> list[Piece]:
        """What each axis leaves of what the one before has left: first the stages, then their matrices, then rows."""
        _, pipeline, tensor = options.degrees()
        replica, stage = divmod(rank // tensor, pipeline)
        if pipeline > 1:
            outline = keep_stages(options, workload, pipeline, stage, outline)
        if tensor > 1:
            outline = split_matrices(options.tensor_options(), workload, tensor, outline)
        if options.replicas() > 1 and options.data_parallel == "fsdp":
            return shard_rows(outline, options.replicas(), replica)
        return super().pieces(options, workload, layout, rank, outline)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds the model of this rank's data shard, or the stages of it that this rank holds."""
        from parbench.training.mesh import mesh_of

        self.workload = workload
        _, pipeline, tensor = self.options.degrees()
        device_type = context.devices[0].type
        mesh = mesh_of(context.group, device_type, data=self.options.replicas(), pipeline=pipeline, tensor=tensor)
        self.is_split = tensor > 1
        build = partial(workload.model, job, **_transformations(self.options, workload, mesh))
        if pipeline > 1:
            line = Line(mesh["pipeline"].get_group(), pipeline, mesh.get_local_rank("pipeline"))
            self.staged = StagedModel(self.options, workload, line, build)
            self.model = self.staged.model
        else:
            self.model = build()
        if self.options.context > 1:
            # Only now: when it is made, DistributedDataParallel gives all ranks the buffers of the first one.
            axis = self._context_axis(context, device_type)
            self.positions = cut_sequences(self.model, workload, self.options.context_method, axis.get_group())
        if workload.trains:
            # Before the first step: after it, DistributedDataParallel shows the split tensors that it has taken apart.
            self.updates = workload.updates(self.model.parameters(), job, group=context.group)
            if self.staged is not None:
                self.staged.updates = self.updates

    def step(self, batch: "Batch") -> "Tensor | None":
        """One optimizer step, through the pipeline if there is one."""
        with self._loss_context():
            return super().step(batch) if self.staged is None else self.staged.step(batch)

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss without a backward pass."""
        with self._loss_context():
            return super().evaluate(batch) if self.staged is None else self.staged.pipeline.evaluate(batch)

    def loss(self, batch: "Batch") -> "Tensor":
        """The mean loss of this rank's shard, or of its part of the sequences in there."""
        return super().loss(take_positions(batch, self.positions))

    @contextmanager
    def part_of_step(self, *, last: bool) -> Iterator[None]:
        """Over the data axis, gradients of a model without stages are exchanged in the last part only."""
        from torch.distributed.fsdp import FSDPModule
        from torch.nn.parallel import DistributedDataParallel

        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        replicas = self.model if isinstance(self.model, DistributedDataParallel) else None
        with replicas.no_sync() if replicas and not last else nullcontext():
            yield

    def step_parts(self) -> list[StepPart]:
        """Those of the schedule, if there is one."""
        return super().step_parts() if self.staged is None else self.staged.step_parts()

    def waiting_s(self) -> float | None:
        """The time in which the schedule had nothing to do for this rank's stages; None where there are no stages."""
        return None if self.staged is None else self.staged.waiting_s()

    def _context_axis(self, context: Context, device_type: str) -> "DeviceMesh":
        """The ranks that share sequences with this one: the same part of consecutive replicas of a model."""
        from parbench.training.mesh import mesh_of

        _, pipeline, tensor = self.options.degrees()
        degree, part = self.options.context, pipeline * tensor
        data = context.ranks // (degree * part)
        return mesh_of(context.group, device_type, data=data, context=degree, part=part)["context"]

    def _loss_context(self) -> AbstractContextManager[None]:
        return split_loss_context() if self.is_split else nullcontext()


def _transformations(options: HybridOptions, workload: "Workload", mesh: "DeviceMesh") -> dict[str, Any]:
    """What is done to the model over each axis of the mesh: the arguments of `parallelize`, which orders them."""
    _, _, tensor = options.degrees()
    replicas, axis = options.replicas(), mesh["data"]
    transformations: dict[str, Any] = {}
    if tensor > 1:
        transformations["split"] = Splitter(
            workload.family, mesh["tensor"], sequence_parallel=options.sequence_parallel
        )
    # Over one rank there is nothing to gather or average, only hooks to pay for.
    if replicas > 1 and options.data_parallel == "fsdp":
        transformations["shard"] = make_sharder(FSDPOptions(), axis)
    elif replicas > 1 and workload.trains:
        # Over a mesh, DDP looks for split tensors in every pass; where there are none, a process group does as well.
        over = {"device_mesh": axis} if tensor > 1 else {"process_group": axis.get_group()}
        transformations["wrap"] = partial(wrap_in_ddp, device=workload.device, options=DDPOptions(), **over)
    return transformations


def _require_exchange(options: HybridOptions) -> None:
    """Raises `Unsupported` where torch's schedule would not exchange all gradients over the data axis.

    Seen with torch 2.13: DistributedDataParallel refuses a second stage in a rank, and FSDP misses the gradients that
    a split backward pass computes later, so that losses are wrong.
    """
    data, _, _ = options.degrees()
    if data == 1:
        return
    if options.data_parallel == "ddp" and options.stages_each() > 1:
        raise Unsupported(f"ddp cannot have several stages a rank, as schedule {options.schedule} does; use fsdp")
    if options.data_parallel == "fsdp" and options.schedule in ZERO_BUBBLE:
        raise Unsupported(f"fsdp misses gradients where schedule {options.schedule} splits the backward pass")


def factorisations(number: int) -> list[tuple[int, int, int]]:
    """Every (data, pipeline, tensor) with that product, most data parallelism first."""
    divisors = [degree for degree in range(number, 0, -1) if number % degree == 0]
    return [
        (data, pipeline, number // data // pipeline)
        for data in divisors
        for pipeline in divisors
        if number // data % pipeline == 0
    ]


def _require_context(options: HybridOptions, workload: WorkloadSpec, devices: Devices) -> None:
    """Raises `Unsupported` where sequences cannot be cut beside what else the mesh cuts."""
    _, pipeline, tensor = options.degrees()
    if pipeline > 1:
        raise Unsupported("sequences are not cut beside pipeline stages: give context or pipeline, not both")
    method = ContextParallelOptions(method=options.context_method)
    require_context_parts(method, workload, replace(devices, count=options.context, nodes=1), split=tensor)


def _name_degrees(options: HybridOptions) -> list[tuple[str, int]]:
    """The axes from the outermost to the innermost with their degrees; that of sequences only where they are cut."""
    data, pipeline, tensor = options.degrees()
    context = [("context", options.context)] if options.context > 1 else []
    return [("data", data), *context, ("pipeline", pipeline), ("tensor", tensor)]


def _write_mesh(options: HybridOptions, devices: Devices) -> str:
    """The mesh in words, and which of its axes cross nodes. The ranks of a node are consecutive."""
    reach = devices.count
    words = []
    for name, degree in _name_degrees(options):
        across = degree > 1 and devices.nodes > 1 and reach > devices.per_node
        words.append(f"{name} {degree}" + " across nodes" * across)
        reach //= degree
    return " × ".join(words)


def _is_supported(options: HybridOptions, workload: WorkloadSpec, devices: Devices) -> bool:
    try:
        Hybrid.layout(options, workload, devices)
    except Unsupported:
        return False
    return True
