"""The parts that only Llama blocks have: rotary positions and a gated MLP."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from parbench.models.nn.cache import Start, take_rows


class RotaryPositions(nn.Module):
    """Rotates pairs of channels by an angle that grows with the position (Su et al. 2021, RoFormer)."""

    def __init__(self, head_size: int, seq_len: int, base: float) -> None:
        super().__init__()
        frequencies = base ** -(torch.arange(0, head_size, 2) / head_size)
        angles = torch.outer(torch.arange(seq_len), frequencies)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self.cosine: Tensor
        self.sine: Tensor

    def keep_positions(self, positions: Tensor) -> None:
        """From now on hidden states are those at `positions` of their sequence, and not at the first ones."""
        self.cosine, self.sine = self.cosine[positions], self.sine[positions]

    def forward(self, hidden: Tensor, start: Start) -> Tensor:
        """(batch, heads, length, head size), whose first position is `start` → the same shape."""
        length = hidden.shape[2]
        cosine, sine = (take_rows(table, start, length).to(hidden.dtype) for table in (self.cosine, self.sine))
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
        """Works on each position alone."""
        output: Tensor = self.down(functional.silu(self.gate(hidden)) * self.up(hidden))
        return output
