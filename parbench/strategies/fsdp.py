"""Fully sharded data parallelism (FSDP2): parameters, gradients and optimizer state are sharded over the ranks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, line_of_devices, require_equal_parts
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh

    from parbench.models.nn.language_model import PartHook
    from parbench.training.workload import Workload


class FSDPOptions(Options):
    """The arguments of `fully_shard`, under its names, and how many times the model is there.

    `reshard_after_forward` frees a block's parameters between its forward and its backward pass, and so gathers them
    twice; embedding and head are kept. Parameters are gathered and computed in `param_dtype`, and gradients are summed
    in `reduce_dtype`. Where the workload's `precision` casts already, they still save communication. With `replicas`,
    the ranks are so many groups of neighbours, and each group shards a model of its own: parameters are gathered within
    it, and what it sums of the gradients is then summed with others. With `offload: parameters`, shards and their
    gradients are in the host's memory, and so is the optimizer, which steps there.
    """

    later_options: ClassVar[frozenset[str]] = frozenset({"replicas", "offload"})
    reshard_after_forward: bool = True
    param_dtype: Literal["fp32", "bf16"] = "fp32"
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    replicas: PositiveInt = 1
    offload: Literal["none", "parameters"] = "none"


class FSDP(Strategy[FSDPOptions]):
    """Each rank keeps 1/N of every block, gathers the block when it is needed, and frees it afterwards.

    Method: Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel"; with replicas, its
    hybrid sharding.
    """

    name = "fsdp"
    options_type = FSDPOptions
    imports = ("torch.distributed.fsdp",)

    @classmethod
    def layout(cls, options: FSDPOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process and a data shard for each device."""
        require_equal_parts(workload, devices.count, "data shards")
        replicas = options.replicas
        if devices.count % replicas:
            raise Unsupported(f"{replicas} replicas need a multiple of {replicas} devices, not {devices.count}")
        if options.offload != "none":
            _require_host(workload, devices)
        note = _write_replicas(replicas, devices) if replicas > 1 else ""
        return Layout(processes=devices.count, data_shards=devices.count, note=note)

    @classmethod
    def is_exact(cls, options: FSDPOptions) -> bool:
        """Not with a type that rounds what the reference does not round."""
        return options.param_dtype == options.reduce_dtype == "fp32"

    @classmethod
    def pieces(
        cls,
        options: FSDPOptions,
        workload: WorkloadSpec,  # noqa: ARG003
        layout: Layout,
        rank: int,
        outline: Sequence[Outline],
    ) -> list[Piece]:
        """A part of the rows of each parameter; nothing of what is offloaded."""
        shards = layout.ranks_per_lane // options.replicas
        pieces = shard_rows(outline, shards, rank % shards)
        if options.offload == "none":
            return pieces
        return [piece._replace(parameter=0, gradient=0, stepped=None) for piece in pieces]

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Shards each block as soon as it is built, so that no rank ever holds the whole model."""
        self.workload = workload
        self.model = workload.model(job, shard=make_sharder(self.options, self._mesh(context)))
        if workload.trains:
            self.updates = workload.updates(self.model.parameters(), job, group=context.group)

    def _mesh(self, context: Context) -> "DeviceMesh":
        """The ranks as a line or, with replicas, in rows: a row shards a model, which others replicate."""
        from parbench.training.mesh import mesh_of

        replicas = self.options.replicas
        if replicas == 1:
            return line_of_devices(context)
        return mesh_of(context.group, context.devices[0].type, replica=replicas, shard=context.ranks // replicas)

    @contextmanager
    def part_of_step(self, *, last: bool) -> Iterator[None]:
        """Gradients are summed over ranks in the last part of a step only, and are whole until then."""
        self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield


def make_sharder(options: FSDPOptions, mesh: "DeviceMesh") -> "PartHook":
    """A hook that shards each block over `mesh` and, when it is called with the whole model at last, the rest."""
    import torch
    from torch import nn
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    policy = MixedPrecisionPolicy()
    if not FSDP.is_exact(options):
        # Only where something is cast: with a policy, FSDP searches the inputs of every block for tensors to cast.
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
        policy = MixedPrecisionPolicy(
            param_dtype=dtypes[options.param_dtype], reduce_dtype=dtypes[options.reduce_dtype]
        )

    offload = CPUOffloadPolicy() if options.offload == "parameters" else OffloadPolicy()
    cut = partial(fully_shard, mesh=mesh, mp_policy=policy, offload_policy=offload)

    def shard(part: "nn.Module", name: str) -> None:
        for module in part.modules():
            if isinstance(module, nn.RNNBase):
                # It would copy the weights into one piece for cuDNN once, and never see what FSDP gathers later.
                module.flatten_parameters = _keep_parameters  # type: ignore[method-assign]
        if name == "block":
            cut(part, reshard_after_forward=options.reshard_after_forward)
        elif name == "model":
            # Embedding and head: the forward pass starts with one and ends with the other, so one exchange serves both.
            cut(part, reshard_after_forward=False)
            if mesh.device_type == "cpu":
                _gather_ahead(part)

    return shard


def _gather_ahead(model: "nn.Module") -> None:
    """Has each unit begin to gather the next one's parameters before it computes.

    On GPUs streams do that. On CPU, FSDP would wait for every exchange where it asks for it.
    """
    from torch.distributed.fsdp import FSDPModule

    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit, following in pairwise(units):
        unit.set_modules_to_forward_prefetch([following])
    # Of the backward pass FSDP knows the order; torch has no public name for asking without waiting.
    model._set_unshard_async_op(True)  # type: ignore[operator]


def _keep_parameters() -> None:
    """Leaves parameters where FSDP gathers them."""


def shard_rows(outline: Sequence[Outline], ranks: int, rank: int) -> list[Piece]:
    """The rows of each parameter that a rank holds: 1/N of them, rounded up, and fewer or none in the last ranks.

    Parameters and gradients are padded to equally many rows in all ranks; the optimizer steps the rank's own rows.
    """
    pieces = []
    for parameter in outline:
        padded = parameter.cut(0, ranks)
        rows = padded.shape[0]
        own = min(rows, max(0, parameter.shape[0] - rank * rows))
        pieces.append(Piece(parameter, padded.elements, padded.elements, stepped=padded.elements // rows * own))
    return pieces


def _write_replicas(replicas: int, devices: Devices) -> str:
    """How many replicas and shards there are, and whether the shards of a replica lie on several nodes."""
    shards = devices.count // replicas
    words = f"{replicas} replicas of {shards} shard" + "s" * (shards > 1)
    return words + " across nodes" * (devices.per_node % shards > 0)


def _require_host(workload: WorkloadSpec, devices: Devices) -> None:
    """Raises `Unsupported` where nothing can be kept in the host's memory instead of a device's."""
    if devices.kind == "cpu":
        raise Unsupported("offload moves parameters from a GPU to the host, and here they are there already")
    if workload.precision == "fp16" and workload.phase == "train":
        raise Unsupported(
            "GPUs tell each other of an overflow in fp16, and offloaded gradients are not there to look at; use bf16"
        )
