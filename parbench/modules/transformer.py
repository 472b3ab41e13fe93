"""The block of the GPT family."""

from torch import Tensor, nn

from parbench.modules.attention import Attention
from parbench.modules.cache import KeyValueCache


class Block(nn.Module):
    """Pre-norm attention and MLP: (batch, seq_len, d_model) → the same shape."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = Attention(d_model, heads, heads, bias=True)
        self.mlp_norm = nn.LayerNorm(d_model)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(approximate="tanh"), nn.Linear(4 * d_model, d_model)
        )

    def forward(self, hidden: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """With `cache`, `hidden` are the positions that follow those in it."""
        hidden = hidden + self.attention(self.attention_norm(hidden), cache)
        transformed: Tensor = self.mlp(self.mlp_norm(hidden))
        return hidden + transformed

    def new_cache(self, length: int) -> KeyValueCache:
        """An empty memory of up to `length` positions for one batch of sequences."""
        return KeyValueCache(length)
