"""The block that GPT and Llama share: pre-norm residual attention, then a pre-norm residual MLP."""

from torch import Tensor, nn

from parbench.models.nn.attention import Attention, AttentionCache
from parbench.models.nn.cache import KeyValueCache


class PreNormBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`: (batch, seq_len, d_model) → the same shape."""

    def __init__(self, attention_norm: nn.Module, attention: Attention, mlp_norm: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.mlp_norm = mlp_norm
        self.mlp = mlp

    def forward(self, hidden: Tensor, cache: AttentionCache | None = None) -> Tensor:
        """With `cache`, `hidden` holds the positions that follow those in the cache."""
        hidden = hidden + self.attention(self.attention_norm(hidden), cache)
        transformed: Tensor = self.mlp(self.mlp_norm(hidden))
        return hidden + transformed

    def new_cache(self, length: int) -> KeyValueCache:
        """An empty cache of up to `length` positions for one batch of sequences."""
        return KeyValueCache(length)
