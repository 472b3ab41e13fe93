"""A model of one's own for parbench: gated MLP blocks that look back over the last few tokens.

Without attention: each block mixes neighbouring positions by a causal depthwise convolution, then channels by a gated
MLP. parbench finds `embed`, `blocks` and `head`, so that it can be sharded block by block and cut into stages.
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """(batch, seq_len, width) to the same shape."""

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.look_back = nn.Conv1d(width, width, kernel_size=reach, groups=width, padding=reach - 1)
        self.gate_and_value = nn.Linear(width, 4 * width)
        self.output = nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Padding at the start, cut off at the end: no position sees a later one."""
        mixed = self.look_back(self.norm(hidden).transpose(1, 2))[..., : hidden.shape[1]].transpose(1, 2)
        gate, value = self.gate_and_value(mixed).chunk(2, dim=-1)
        return hidden + self.output(torch.nn.functional.silu(gate) * value)


class Mixer(nn.Module):
    """Token ids (batch, seq_len) to logits (batch, seq_len, vocab_size)."""

    def __init__(self, vocab_size: int, width: int, layers: int, reach: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(width, reach) for _ in range(layers))
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Nothing but `embed`, `blocks` and `head`, one after another."""
        hidden = self.embed(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


def build(*, vocab_size: int, seq_len: int, width: int = 128, layers: int = 4, reach: int = 4) -> nn.Module:
    """What the scenario names: the workload's sizes come first, then its `options`."""
    if reach > seq_len:
        raise ValueError(f"a block cannot look back over {reach} of {seq_len} tokens")
    return Mixer(vocab_size, width, layers, reach)
