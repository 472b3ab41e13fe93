"""How submodules are split over devices: Megatron's columns and rows, and sequence parallelism.

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


def split_blocks(
    columns: Iterable[str], rows: Iterable[str], *, sequence_parallel: bool
) -> tuple[ParallelStyle | None, Styles, Styles]:
    """The styles of embedding, `PreNormBlock`s and a head of norm and linear.

    Matrices in `columns` take whole hidden states and give parts; those in `rows` take the parts, whose products sum to
    whole hidden states. Every device embeds all tokens, which costs little. Each device has a part of the head's
    vocabulary, and logits stay split for a loss that never gathers them. With `sequence_parallel`, activations between
    matrices are split along the sequence, so each norm works on a part of the sequence.
    """
    between = SEQUENCE if sequence_parallel else Replicate()
    embed = PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=SEQUENCE)
    block: Styles = {name: ColwiseParallel(input_layouts=between) for name in columns}
    block |= {name: RowwiseParallel(output_layouts=between) for name in rows}
    head: Styles = {"1": ColwiseParallel(input_layouts=between, output_layouts=Shard(-1), use_local_output=False)}
    if not sequence_parallel:
        return None, block, head
    norms: Styles = {name: SequenceParallel() for name in ("attention_norm", "mlp_norm")}
    return embed, {**block, **norms}, {**head, "0": SequenceParallel()}
