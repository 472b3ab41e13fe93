"""Activation checkpointing as a workload asks for it: which blocks compute their activations again, and how much."""

from typing import Annotated, Literal

from pydantic import Field

from parbench.base_types import Spec


class Every(Spec):
    """Every `every`-th block computes all of its activations again, the first block among them."""

    every: Annotated[int, Field(ge=2, le=1000)]


Checkpointing = bool | Literal["selective", "offloaded"] | Every
"""What a backward pass computes again: nothing (False), every block (True), what in a block is cheap, or some blocks.

With `selective`, a block keeps what its matrix products, its attention and sums over ranks gave, and computes again
what lies between them (Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models"). With
`offloaded`, every block computes again, and what goes into it waits in the host's memory.
"""


def is_checkpointed(block: int, checkpointing: Checkpointing) -> bool:
    """Whether the block of this number in the whole model computes anything again."""
    return block % checkpointing.every == 0 if isinstance(checkpointing, Every) else bool(checkpointing)
