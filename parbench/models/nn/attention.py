"""Causal attention with one fused projection, for GPT and Llama blocks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from parbench.models.nn.cache import KeyValueCache, Start, StaticKeyValues
from parbench.models.nn.kernels import Attend, attend

AttentionCache = KeyValueCache | StaticKeyValues

Rotate = Callable[[Tensor, Start], Tensor]
"""Encodes positions in (batch, heads, length, head size), from the position of the first on."""


class Attention(nn.Module):
    """(batch, seq_len, d_model) → the same shape; equal groups of `heads` share `key_value_heads` heads.

    `rotate` encodes positions in queries and keys.
    """

    def __init__(
        self, d_model: int, heads: int, key_value_heads: int, bias: bool, rotate: Rotate | None = None
    ) -> None:
        super().__init__()
        self.head_size = d_model // heads
        self.rows = (d_model, key_value_heads * self.head_size, key_value_heads * self.head_size)
        self.groups = heads // key_value_heads
        self.attend: Attend = attend
        self.rotate = rotate
        self.query_key_value = nn.Linear(d_model, sum(self.rows), bias=bias)
        self.output = nn.Linear(d_model, d_model, bias=bias)

    def forward(self, hidden: Tensor, cache: AttentionCache | None = None) -> Tensor:
        """With `cache`, `hidden` holds the positions that follow those in the cache."""
        projected = self.query_key_value(hidden).split(self.rows, dim=-1)
        batch, length = projected[0].shape[:2]
        query, key, value = (part.view(batch, length, -1, self.head_size).transpose(1, 2) for part in projected)
        start: Start = 0 if cache is None else cache.start
        visible = None if cache is None else cache.visible
        if self.rotate is not None:
            query, key = self.rotate(query, start), self.rotate(key, start)
        if cache is not None:
            key, value = cache.extend(key, value)
        # A single new token attends to all before it; a prompt attends to what is not ahead, as in training.
        limits: dict[str, Any] = {"is_causal": start == 0} if visible is None else {"attn_mask": visible}
        mixed = self.attend(query, key, value, enable_gqa=self.groups > 1, **limits)
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, -1))
        return output

    @torch.no_grad()
    def split_heads(self, parts: int) -> None:
        """Reorders the rows of the fused projection: equal parts then hold whole heads of queries, keys and values."""
        order = torch.cat([rows.chunk(parts)[part] for part in range(parts) for rows in self._row_numbers()])
        for parameter in self.query_key_value.parameters():
            parameter.copy_(parameter[order.to(parameter.device)].clone())
        self.rows = tuple(rows // parts for rows in self.rows)  # type: ignore[assignment]

    def _row_numbers(self) -> tuple[Tensor, ...]:
        rows: tuple[Tensor, ...] = torch.arange(sum(self.rows)).split(self.rows)
        return rows
