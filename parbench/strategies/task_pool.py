"""Task parallelism: independent models on independent devices, without communication."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, StepPart, Strategy
from parbench.system.devices import Devices

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.optim import Optimizer

    from parbench.data.batches import Batch
    from parbench.training.holdings import Outline, Piece
    from parbench.training.workload import Workload

MOST_STREAMS = 32
"""The streams of a device that torch hands out, in turn (`kStreamsPerPool` in CUDAStream.cpp)."""


class TaskPoolOptions(Options):
    """`tasks_per_device` models share a device: small models leave much of a large GPU idle.

    `sharing` is how they share a GPU. `time`: a process each, which the driver lets take turns. `mps`: a process each,
    all of them clients of NVIDIA's Multi-Process Service, which runs their kernels side by side and is started for the
    trial. `streams`: one process for all, in which each model has a CUDA stream of its own.

    With `aggregate: average`, the parameters of all trained models are averaged into one model at the end, whose
    validation loss is reported.
    """

    later_options: ClassVar[frozenset[str]] = frozenset({"sharing"})

    tasks_per_device: PositiveInt = 1
    sharing: Literal["time", "mps", "streams"] = "time"
    aggregate: Literal["none", "average"] = "none"


class TaskPool(Strategy[TaskPoolOptions]):
    """A lane for each device. A lane that is free takes the next model from a queue, the longest first.

    Longest first: Graham 1969, "Bounds on Multiprocessing Timing Anomalies".
    """

    name = "task_pool"
    independent = True
    options_type = TaskPoolOptions
    tasks: "Sequence[TaskPool]" = ()
    """The models that share this process, each as a task of its own; empty where there is one."""

    @classmethod
    def layout(cls, options: TaskPoolOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A lane for each concurrent task; raises `Unsupported` where models are fewer than tasks, or cannot share."""
        tasks = devices.count * options.tasks_per_device
        if workload.models != "auto" and workload.models < tasks:
            what = f"{devices.count} devices" + (f" × {options.tasks_per_device} tasks" * (tasks > devices.count))
            raise Unsupported(f"a pool of {what} needs at least {tasks} models")
        if options.aggregate != "none" and workload.phase != "train":
            raise Unsupported("aggregate averages trained models; this workload trains none")
        if options.sharing != "time":
            require_shared_gpus(options, devices)
        if options.sharing == "streams":
            require_equal_steps(options, workload)
            return Layout(
                processes=devices.count,
                lanes=devices.count,
                stacked=options.tasks_per_device,
                queued=True,
                note="a CUDA stream for each model",
            )
        return Layout(
            processes=tasks,
            processes_per_device=options.tasks_per_device,
            mps=options.sharing == "mps",
            lanes=tasks,
            queued=True,
            averaged=options.aggregate == "average",
        )

    @classmethod
    def pieces(
        cls,
        options: TaskPoolOptions,
        workload: WorkloadSpec,
        layout: Layout,
        rank: int,
        outline: "Sequence[Outline]",
    ) -> "list[Piece]":
        """All of a model; of those that share a process, each has an optimizer, and one at a time has gradients."""
        if options.sharing != "streams":
            return super().pieces(options, workload, layout, rank, outline)
        from parbench.training.holdings import Piece

        first = [Piece.whole(parameter) for parameter in outline]
        return first + [piece._replace(gradient=0) for piece in first] * (layout.stacked - 1)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds model `job`; where models share a process, also those that follow it, each with an optimizer."""
        if self.options.sharing != "streams":
            super().setup(workload, job, context)
            return
        from torch import nn

        self.workload = workload
        self.tasks = [TaskPool(TaskPoolOptions()) for _ in range(context.stacked)]
        for index, task in enumerate(self.tasks):
            task.setup(workload, job + index, context)
        self.model = nn.ModuleList([task.model for task in self.tasks])
        self.streams = streams_of(context.devices[0], context.stacked)

    def optimizers(self) -> "Sequence[Optimizer]":
        """One for each model."""
        return [each for task in self.tasks for each in task.optimizers()] if self.tasks else super().optimizers()

    def step_parts(self) -> list[StepPart]:
        """Those of every model of this process."""
        return [part for task in self.tasks for part in task.step_parts()] if self.tasks else super().step_parts()

    def step(self, batch: "Batch") -> "Tensor | None":
        """A step of the model; where several share the process, one of each (models), with their batches."""
        return self._on_streams(TaskPool.step, batch) if self.tasks else super().step(batch)

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """As `step`, the loss without a step."""
        return self._on_streams(TaskPool.evaluate, batch) if self.tasks else super().evaluate(batch)

    def _on_streams(self, compute: "Callable[[TaskPool, Batch], Tensor | None]", batch: "Batch") -> "Tensor":
        """The losses (models) that `compute` gives for each task with its part of the batch, on the task's stream.

        Streams wait for what the current one holds by now, such as the copy of the batch, and it waits for all of them
        before anything else: then step times, which are taken on it, are those of all models, and no memory goes from
        stream to stream without such a wait between, so that the allocator need not be told (`record_stream`).
        """
        import torch

        current = torch.cuda.current_stream()
        losses = []
        for task, stream, *part in zip(self.tasks, self.streams, *batch, strict=True):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                losses.append(compute(task, type(batch)(*part)))
        for stream in self.streams:
            current.wait_stream(stream)
        return torch.stack([loss for loss in losses if loss is not None])


@cache
def streams_of(device: "torch.device", count: int) -> "tuple[torch.cuda.Stream, ...]":
    """The same streams for every group of models: the allocator keeps memory for each stream that it has seen."""
    import torch

    return tuple(torch.cuda.Stream(device) for _ in range(count))


def require_shared_gpus(options: TaskPoolOptions, devices: Devices) -> None:
    """Raises `Unsupported` unless several models share a GPU."""
    if devices.kind != "cuda":
        raise Unsupported(f"sharing: {options.sharing} is how models share a GPU; on CPU the kernel schedules them")
    if options.tasks_per_device == 1:
        raise Unsupported(f"sharing: {options.sharing} is for tasks_per_device of 2 and more: one shares with nobody")


def require_equal_steps(options: TaskPoolOptions, workload: WorkloadSpec) -> None:
    """Raises `Unsupported` unless models in groups of `tasks_per_device` can take their steps together."""
    group = options.tasks_per_device
    if workload.phase == "generate":
        raise Unsupported("sharing: streams does not generate: tokens are timed on one stream; use time or mps")
    if group > MOST_STREAMS:
        raise Unsupported(f"torch has {MOST_STREAMS} CUDA streams for a device, fewer than {group} tasks")
    if workload.models != "auto" and workload.models % group:
        raise Unsupported(f"{workload.models} models do not divide into groups of {group}, which share a process")
    if workload.length_per_model:
        raise Unsupported("models that share a process take their steps together; leave length_per_model out")
    if options.aggregate != "none":
        raise Unsupported("aggregate averages models of processes of their own; use sharing: time or mps")
