"""Ulysses: for attention, ranks exchange their parts of the sequence with all heads for whole sequences of some heads.

Method: Jacobs et al. 2023, "DeepSpeed Ulysses: System Optimizations for Enabling Training of Extreme Long Sequence
Transformer Models".
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from parbench.models.nn.kernels import attend, repeat_heads


class UlyssesAttention:
    """Causal attention between all positions of sequences, of which each rank of `group` (None: all ranks) has some."""

    def __init__(self, group: ProcessGroup | None) -> None:
        self._group = group
        self._rank = distributed.get_rank(group)
        self._ranks = distributed.get_world_size(group)

    def positions(self, seq_len: int) -> Tensor:
        """The positions of this rank, which are consecutive."""
        return torch.arange(seq_len).chunk(self._ranks)[self._rank]

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        is_causal: bool = True,
        enable_gqa: bool = False,  # noqa: ARG002 - as shapes say
    ) -> Tensor:
        """Takes those of this rank's positions, and gives what all positions up to each of them make of it.

        Where ranks are more than the heads of keys and values, several of them get the same one.
        """
        key, value = (repeat_heads(part, max(self._ranks, part.shape[1])) for part in (key, value))
        by_rank = [part.unflatten(1, (self._ranks, -1)).movedim(1, 0) for part in (query, key, value)]
        # (rank that had these positions, batch, heads, length, head size)
        received = _Exchange.apply(self._group, torch.cat(by_rank, dim=2))  # type: ignore[no-untyped-call]
        sequences: Tensor = received.movedim(0, 2).flatten(2, 3)
        query, key, value = sequences.split([part.shape[2] for part in by_rank], dim=1)
        mixed = attend(query, key, value, is_causal=is_causal, enable_gqa=query.shape[1] > key.shape[1])
        to_ranks = mixed.unflatten(2, (self._ranks, -1)).movedim(2, 0)
        # (rank that had these heads, batch, heads, length, head size)
        returned: Tensor = _Exchange.apply(self._group, to_ranks)  # type: ignore[no-untyped-call]
        # Heads end up beside each other in memory, where the next layer takes them together.
        return returned.permute(1, 3, 0, 2, 4).flatten(2, 3).transpose(1, 2)


class _Exchange(torch.autograd.Function):
    """(ranks, …) → the same shape: part n goes to rank n, and what comes from there takes its place."""

    @staticmethod
    def forward(ctx: Any, group: ProcessGroup | None, parts: Tensor) -> Tensor:
        ctx.group = group
        return _exchange(group, parts)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> Any:
        return None, _exchange(ctx.group, gradients)


def _exchange(group: ProcessGroup | None, parts: Tensor) -> Tensor:
    parts = parts.contiguous()
    received = torch.empty_like(parts)
    distributed.all_to_all_single(received, parts, group=group)
    return received
