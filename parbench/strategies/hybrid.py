"""Data, pipeline and tensor parallelism at once, over a mesh of devices."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import Context, Layout, StepPart, Strategy, require_equal_parts
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
    devices. `data_parallel` says how the data axis keeps its replicas equal. The other options are those of
    `model_parallel` and `tensor_parallel`.
    """

    data: Degree = "auto"
    pipeline: Degree = "auto"
    tensor: Degree = "auto"
    data_parallel: Literal["ddp", "fsdp"] = "ddp"
    sequence_parallel: bool = False

    def degrees(self) -> tuple[int, int, int]:
        """The degrees of data, pipeline and tensor parallelism; `auto` counts as 1."""
        data, pipeline, tensor = (
            1 if degree == "auto" else degree for degree in (self.data, self.pipeline, self.tensor)
        )
        return data, pipeline, tensor

    def tensor_options(self) -> TensorParallelOptions:
        """The options of the tensor axis."""
        return TensorParallelOptions(sequence_parallel=self.sequence_parallel)


class Hybrid(Strategy[HybridOptions]):
    """Tensor parallelism between neighbours, pipeline stages around it, data parallelism outermost.

    The more two ranks communicate, the closer they are to each other (Narayanan et al. 2021, "Efficient Large-Scale
    Language Model Training on GPU Clusters Using Megatron-LM").
    """

    name = "hybrid"
    phases = ("train", "score")
    options_type = HybridOptions
    imports = ("parbench.training.pipeline", "torch.distributed.tensor.parallel", "torch.distributed.fsdp")
    staged: StagedModel | None = None
    """The stages of this rank where the model is cut into stages."""

    @classmethod
    def variants(cls, options: HybridOptions, workload: WorkloadSpec, devices: Devices) -> Sequence[HybridOptions]:
        """Every factorisation of the number of devices that has the given degrees and that the workload supports.

        Where none is supported, the first one, which `layout` then refuses with a reason.
        """
        fitting = [
            options.model_copy(update={"data": data, "pipeline": pipeline, "tensor": tensor})
            for data, pipeline, tensor in factorisations(devices.count)
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
        """A process a device: rank = (data · pipeline degree + stage) · tensor degree + part."""
        data, pipeline, tensor = options.degrees()
        if data * pipeline * tensor != devices.count:
            raise Unsupported(
                f"a mesh of data {data} × pipeline {pipeline} × tensor {tensor} does not have {devices.count} devices"
            )
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
            require_tensor_plan(options.tensor_options(), workload, tensor)
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
        data, pipeline, tensor = options.degrees()
        shard, stage = divmod(rank // tensor, pipeline)
        if pipeline > 1:
            outline = keep_stages(options, workload, pipeline, stage, outline)
        if tensor > 1:
            outline = split_matrices(options.tensor_options(), workload, tensor, outline)
        if data > 1 and options.data_parallel == "fsdp":
            return shard_rows(outline, data, shard)
        return super().pieces(options, workload, layout, rank, outline)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds the model of this rank's data shard, or the stages of it that this rank holds."""
        from parbench.training.mesh import mesh_of

        self.workload = workload
        data, pipeline, tensor = self.options.degrees()
        mesh = mesh_of(context.group, context.devices[0].type, data=data, pipeline=pipeline, tensor=tensor)
        self.is_split = tensor > 1
        build = partial(workload.model, job, **_transformations(self.options, workload, mesh))
        if pipeline > 1:
            line = Line(mesh["pipeline"].get_group(), pipeline, mesh.get_local_rank("pipeline"))
            self.staged = StagedModel(self.options, workload, line, build)
            self.model = self.staged.model
        else:
            self.model = build()
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

    def _loss_context(self) -> AbstractContextManager[None]:
        return split_loss_context() if self.is_split else nullcontext()


def _transformations(options: HybridOptions, workload: "Workload", mesh: "DeviceMesh") -> dict[str, Any]:
    """What is done to the model over each axis of the mesh: the arguments of `parallelize`, which orders them."""
    data, _, tensor = options.degrees()
    transformations: dict[str, Any] = {}
    if tensor > 1:
        transformations["split"] = Splitter(
            workload.family, mesh["tensor"], sequence_parallel=options.sequence_parallel
        )
    # Over one data shard there is nothing to gather or average, only hooks to pay for.
    if data > 1 and options.data_parallel == "fsdp":
        transformations["shard"] = make_sharder(FSDPOptions(), mesh["data"])
    elif data > 1 and workload.trains:
        # Over a mesh, DDP looks for split tensors in every pass; where there are none, a process group does as well.
        over = {"device_mesh": mesh["data"]} if tensor > 1 else {"process_group": mesh["data"].get_group()}
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


def _write_mesh(options: HybridOptions, devices: Devices) -> str:
    """The mesh in words, and which of its axes cross nodes. The ranks of a node are consecutive."""
    degrees, reach = options.degrees(), devices.count
    words = []
    for name, degree in zip(("data", "pipeline", "tensor"), degrees, strict=True):
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
