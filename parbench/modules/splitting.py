"""The styles in which submodules are split over devices: Megatron's columns and rows, and sequence parallelism.

Methods: Shoeybi et al. 2019, "Megatron-LM"; Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
Transformer Models" for the split along the sequence.
"""

from collections.abc import Iterable

from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
)

Styles = dict[str, ParallelStyle]

SEQUENCE = Shard(1)


def split_linears(columns: Iterable[str], rows: Iterable[str], *, sequence_parallel: bool) -> Styles:
    """`columns` take whole hidden states and give parts; `rows` take those parts, and sum to whole hidden states."""
    between = SEQUENCE if sequence_parallel else Replicate()
    styles: Styles = {name: ColwiseParallel(input_layouts=between) for name in columns}
    styles.update({name: RowwiseParallel(output_layouts=between) for name in rows})
    return styles


def split_norms(names: Iterable[str], *, sequence_parallel: bool) -> Styles:
    """Norms see a part of the sequence each, or else the same on every device."""
    return {name: SequenceParallel() for name in names} if sequence_parallel else {}


def split_embed(*, sequence_parallel: bool) -> ParallelStyle | None:
    """Every device embeds all tokens, which costs nothing, and keeps its part of the sequence."""
    if not sequence_parallel:
        return None
    return PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=SEQUENCE)


def split_head(norm: str, linear: str, *, sequence_parallel: bool) -> Styles:
    """A part of the vocabulary each; the logits stay split, for a loss that never brings them together."""
    between = SEQUENCE if sequence_parallel else Replicate()
    logits = ColwiseParallel(input_layouts=between, output_layouts=Shard(-1), use_local_output=False)
    return {**split_norms([norm], sequence_parallel=sequence_parallel), linear: logits}
