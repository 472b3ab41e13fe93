"""The skeleton that every family fills: embed → blocks → head, or any contiguous part of it."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from parbench.workloads.base import Family


class LanguageModel(nn.Module):
    """A whole model, or a stage of it: `embed` only at the start, `head` only at the end.

    A whole model maps token ids (batch, seq_len) to logits (batch, seq_len, vocab_size). Blocks keep the numbers that
    they have in the whole model, so that a parameter has the same name wherever it lies.
    """

    def __init__(self, embed: nn.Module | None, blocks: dict[int, nn.Module], head: nn.Module | None) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleDict({str(index): block for index, block in blocks.items()})
        self.head = head

    def forward(self, hidden: Tensor) -> Tensor:
        """Token ids or hidden states in; hidden states or logits out."""
        if self.embed is not None:
            hidden = self.embed(hidden)
        for block in self.blocks.values():
            hidden = block(hidden)
        return hidden if self.head is None else self.head(hidden)


def build_model(
    family: Family, *, vocab_size: int, seq_len: int, seed: str, blocks: range | None = None
) -> LanguageModel:
    """The model, or the stage of it that holds `blocks`; the first stage embeds, the last has the head.

    Every part is initialised from a seed of its own, so that a stage has exactly the values that the whole model has
    there, without ever building the rest.
    """
    blocks = range(family.n_blocks) if blocks is None else blocks
    first, last = blocks.start == 0, blocks.stop == family.n_blocks
    return LanguageModel(
        embed=_seeded(f"{seed}/embed", lambda: family.embed(vocab_size, seq_len)) if first else None,
        blocks={index: _seeded(f"{seed}/block{index}", family.block) for index in blocks},
        head=_seeded(f"{seed}/head", lambda: family.head(vocab_size)) if last else None,
    )


def _seeded(seed: str, build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed(seed))
        return build()


def stable_seed(text: str) -> int:
    """A 63-bit seed that is the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
