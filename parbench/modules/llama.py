"""The block of the Llama family."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from parbench.modules.attention import Attention
from parbench.modules.cache import KeyValueCache


class RotaryPositions(nn.Module):
    """Turns pairs of channels by an angle that grows with the position (Su et al. 2021, RoFormer)."""

    def __init__(self, head_size: int, seq_len: int, base: float) -> None:
        super().__init__()
        frequencies = base ** -(torch.arange(0, head_size, 2) / head_size)
        angles = torch.outer(torch.arange(seq_len), frequencies)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self.cosine: Tensor
        self.sine: Tensor

    def forward(self, hidden: Tensor, start: int) -> Tensor:
        """(batch, heads, length, head size), whose first position is `start` → the same shape."""
        length = hidden.shape[2]
        cosine, sine = (table[start : start + length].to(hidden.dtype) for table in (self.cosine, self.sine))
        first, second = hidden.chunk(2, dim=-1)
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) · up(x))` (Shazeer 2020): (…, d_model) → the same shape."""

    def __init__(self, d_model: int, hidden_size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, hidden_size, bias=False)
        self.up = nn.Linear(d_model, hidden_size, bias=False)
        self.down = nn.Linear(hidden_size, d_model, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """One position does not see another."""
        output: Tensor = self.down(functional.silu(self.gate(hidden)) * self.up(hidden))
        return output


class LlamaBlock(nn.Module):
    """RMSNorm, rotary grouped-query attention, RMSNorm, SwiGLU: (batch, seq_len, d_model) → the same shape."""

    def __init__(
        self, d_model: int, heads: int, key_value_heads: int, hidden_size: int, seq_len: int, rope_base: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, eps=1e-5)
        rotary = RotaryPositions(d_model // heads, seq_len, rope_base)
        self.attention = Attention(d_model, heads, key_value_heads, bias=False, rotate=rotary)
        self.mlp_norm = nn.RMSNorm(d_model, eps=1e-5)
        self.mlp = SwiGLU(d_model, hidden_size)

    def forward(self, hidden: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """With `cache`, `hidden` are the positions that follow those in it."""
        hidden = hidden + self.attention(self.attention_norm(hidden), cache)
        transformed: Tensor = self.mlp(self.mlp_norm(hidden))
        return hidden + transformed

    def new_cache(self, length: int) -> KeyValueCache:
        """An empty memory of up to `length` positions for one batch of sequences."""
        return KeyValueCache(length)
