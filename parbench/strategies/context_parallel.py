"""Context parallelism: every sequence is cut over all ranks, whose positions meet in attention alone."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

from parbench.errors import Unsupported
from parbench.models.base import Heads
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, require_equal_parts
from parbench.strategies.ddp import DDPOptions, wrap_in_ddp
from parbench.system.devices import Devices

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup

    from parbench.data.batches import Batch
    from parbench.training.workload import Workload

Method = Literal["ring", "ulysses"]

MAX_HEAD_SIZE, HEAD_ALIGNMENT = 256, 8
"""What CUDA's fused kernels take without a copy of queries, keys and values."""


class ContextParallelOptions(Options):
    """`method` is how positions of different ranks meet.

    With `ring`, keys and values go round all ranks. With `ulysses` each rank has, for a while, all positions of some of
    the heads, which must divide.
    """

    method: Method = "ring"


class ContextParallel(Strategy[ContextParallelOptions]):
    """Every rank holds the model, and some of the positions of every sequence of the batch.

    What a layer keeps for its backward pass is 1/N of what one device keeps. Each rank's loss is the mean over its own
    tokens, of which all ranks have equally many, so that the mean of all gradients is that of the whole batch:
    `DistributedDataParallel` averages them. Methods: ring attention (Liu et al. 2023) and DeepSpeed Ulysses (Jacobs et
    al. 2023).
    """

    name = "context_parallel"
    phases = ("train", "score")
    options_type = ContextParallelOptions
    imports = ("parbench.models.nn.ring", "parbench.models.nn.ulysses")
    positions: "Tensor | None" = None
    """Where this rank's tokens are in their sequences; None where one rank has all of them."""

    @classmethod
    def layout(cls, options: ContextParallelOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process a device. Every rank sees the whole batch, and takes its positions from it."""
        require_context_parts(options, workload, devices)
        require_equal_parts(workload, 1, "batches")
        note = f"{workload.seq_len // devices.count:,} positions each" if devices.count > 1 else ""
        return Layout(processes=devices.count, note=note)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds the whole model, for the positions of this rank."""
        super().setup(workload, job, context)
        if context.ranks > 1:
            # Only now: when it is made, DistributedDataParallel gives all ranks the buffers of the first one.
            self.positions = cut_sequences(self.model, workload, self.options.method, context.group)

    def wrap(self, model: "nn.Module", context: Context) -> "nn.Module":
        """The model in DistributedDataParallel, where it is trained."""
        if not self.workload.trains:
            return model
        return wrap_in_ddp(model, context.devices[0], DDPOptions(), process_group=context.group)

    def part_of_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged in the last part only."""
        return nullcontext() if last else self.model.no_sync()  # type: ignore[operator]

    def loss(self, batch: "Batch") -> "Tensor":
        """The mean loss of this rank's positions, in nats per token."""
        return super().loss(take_positions(batch, self.positions))


def cut_sequences(model: "nn.Module", workload: "Workload", method: Method, group: "ProcessGroup | None") -> "Tensor":
    """Makes a model one for this rank's positions of every sequence, which attend to all positions of the group.

    Returns where in their sequences these positions are.
    """
    import torch

    from parbench.models.nn.attention import Attention
    from parbench.models.nn.ring import RingAttention
    from parbench.models.nn.ulysses import UlyssesAttention

    across = RingAttention(group) if method == "ring" else UlyssesAttention(group)
    positions = across.positions(workload.spec.seq_len).to(workload.device)
    # What ranks exchange stays outside of compiled graphs.
    attend = torch.compiler.disable(across.attend) if workload.spec.compile else across.attend
    for module in model.modules():
        if isinstance(module, Attention):
            module.attend = attend
        elif keep := getattr(module, "keep_positions", None):
            keep(positions)
    return positions


def take_positions(batch: "Batch", positions: "Tensor | None") -> "Batch":
    """The tokens at these positions of all sequences; None: all tokens."""
    if positions is None:
        return batch
    return type(batch)(*(tokens[:, positions] for tokens in batch))


def require_context_parts(
    options: ContextParallelOptions, workload: WorkloadSpec, devices: Devices, *, split: int = 1
) -> None:
    """Raises `Unsupported` where the workload's sequences cannot be cut over so many devices.

    Of the heads each of them has one of `split` parts.
    """
    heads, is_ring = workload.model.attention_heads(), options.method == "ring"
    if heads is None:
        raise Unsupported(workload.model.context_refusal())
    heads = heads._replace(queries=heads.queries // split, keys=heads.keys // split)
    if devices.count == 1:
        return
    each = 2 if is_ring else 1
    if workload.seq_len % (each * devices.count):
        parts = f"{each * devices.count} parts, {each} for each device"
        raise Unsupported(f"a sequence of {workload.seq_len} tokens does not divide into {parts}", field="seq_len")
    reason = _why_no_ring(heads, devices) if is_ring else _why_no_exchange(heads, devices.count)
    if reason:
        raise Unsupported(reason)


def _why_no_ring(heads: Heads, devices: Devices) -> str | None:
    if devices.kind == "cuda" and (heads.size % HEAD_ALIGNMENT or heads.size > MAX_HEAD_SIZE):
        return (
            f"CUDA's attention kernels take heads of a multiple of {HEAD_ALIGNMENT} channels and at most "
            f"{MAX_HEAD_SIZE}, not {heads.size}; method ulysses takes any"
        )
    return None


def _why_no_exchange(heads: Heads, degree: int) -> str | None:
    if heads.queries % degree:
        return f"{heads.queries} heads do not divide into {degree} parts; method ring takes any number"
    if heads.keys % degree and degree % heads.keys:
        return (
            f"{heads.keys} heads of keys and values neither divide into {degree} parts nor can they be repeated to "
            "that many; method ring takes any number"
        )
    return None
