"""Tensor parallelism: every block's matrices are split over all ranks, which work on the same batch."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from parbench.errors import Unsupported
from parbench.models.base import Family
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, line_of_devices, refuse, require_equal_parts
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh

    from parbench.data.batches import Batch
    from parbench.training.workload import Workload


class TensorParallelOptions(Options):
    """`sequence_parallel` also splits activations, along the sequence, between matrices (Korthikanti et al. 2022)."""

    sequence_parallel: bool = False


class TensorParallel(Strategy[TensorParallelOptions]):
    """Splits columns and rows of each block's matrices over devices, and the vocabulary of the head.

    Method: Shoeybi et al. 2019, "Megatron-LM". The loss is computed on split logits, so no rank ever holds all of them.
    """

    name = "tensor_parallel"
    options_type = TensorParallelOptions
    imports = ("torch.distributed.tensor.parallel",)

    @classmethod
    def layout(cls, options: TensorParallelOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process a device. Every rank sees the whole batch."""
        require_tensor_plan(options, workload, devices.count)
        require_equal_parts(workload, 1, "batches")
        return Layout(processes=devices.count)

    @classmethod
    def pieces(
        cls,
        options: TensorParallelOptions,
        workload: WorkloadSpec,
        layout: Layout,
        rank: int,
        outline: Sequence[Outline],
    ) -> list[Piece]:
        """1/N of each matrix that is split, and all of each other parameter."""
        split = split_matrices(options, workload, layout.ranks_per_lane, outline)
        return super().pieces(options, workload, layout, rank, split)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Splits each part as soon as it is built, so that no rank ever holds the whole model."""
        self.workload = workload
        mesh = line_of_devices(context)
        split = Splitter(workload.family, mesh, sequence_parallel=self.options.sequence_parallel)
        self.model = workload.model(job, split=split)
        if workload.trains:
            self.updates = workload.updates(self.model.parameters(), job, group=context.group)

    def step(self, batch: "Batch") -> "Tensor | None":
        """One optimizer step, with the loss over split logits."""
        with split_loss_context():
            return super().step(batch)

    def evaluate(self, batch: "Batch") -> "Tensor | None":
        """The loss over split logits."""
        with split_loss_context():
            return super().evaluate(batch)


class Splitter:
    """A hook that splits each part of a family's models over `mesh`."""

    def __init__(self, family: Family, mesh: "DeviceMesh", *, sequence_parallel: bool) -> None:
        self.mesh = mesh
        self.plan = family.tensor_plan(sequence_parallel=sequence_parallel)

    def __call__(self, part: "nn.Module", name: str) -> None:
        """Splits the part called `name`: embed, block or head."""
        from torch.distributed.tensor.parallel import parallelize_module

        from parbench.models.nn.attention import Attention

        for module in part.modules():
            if isinstance(module, Attention):
                module.split_heads(self.mesh.size())
        style = getattr(self.plan, name)
        if style:
            parallelize_module(part, self.mesh, style)


def split_matrices(
    options: TensorParallelOptions, workload: WorkloadSpec, degree: int, outline: Sequence[Outline]
) -> list[Outline]:
    """What a rank holds of each parameter: of columns a part of their biases as well, beside rows the whole bias."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

    plan = workload.model.tensor_plan(sequence_parallel=options.sequence_parallel)
    styles = {"blocks": plan.block, "head": plan.head}

    def split(parameter: Outline) -> Outline:
        part, _, path = parameter.name.partition(".")
        # The number of a block stands between the part and the name of its module.
        module, _, kind = (path.partition(".")[2] if part == "blocks" else path).rpartition(".")
        style = styles.get(part, {}).get(module)
        if isinstance(style, ColwiseParallel):
            return parameter.cut(0, degree)
        return parameter.cut(1, degree) if isinstance(style, RowwiseParallel) and kind == "weight" else parameter

    return [split(parameter) for parameter in outline]


def split_loss_context() -> "AbstractContextManager[None]":
    """The context of forward and backward passes whose logits are split over the vocabulary."""
    from torch.distributed.tensor.parallel import loss_parallel

    context: AbstractContextManager[None] = loss_parallel()
    return context


def require_tensor_plan(options: TensorParallelOptions, workload: WorkloadSpec, degree: int) -> None:
    """Raises `Unsupported` where the workload's tensors cannot be split over `degree` devices."""
    refuse(workload, loss_chunks="the vocabulary is split over ranks, and so are logits already; leave loss_chunks out")
    family = workload.model
    reason = family.tensor_refusal(degree)
    if reason:
        raise Unsupported(reason)
    if workload.vocab_size % degree:
        more = -(-workload.vocab_size // degree) * degree
        hint = f"set model.vocab_size to {more}"
        raise Unsupported(f"a vocabulary of {workload.vocab_size:,} does not divide into {degree} parts; {hint}")
    if options.sequence_parallel and workload.phase == "generate":
        raise Unsupported("sequence_parallel cannot split a single new token along the sequence")
    if options.sequence_parallel and workload.seq_len % degree:
        raise Unsupported(
            f"a sequence of {workload.seq_len} tokens does not divide into {degree} parts", field="seq_len"
        )
