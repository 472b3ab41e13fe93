"""Ring attention: each rank's queries stay where they are, while keys and values go round all ranks.

Method: Liu et al. 2023, "Ring Attention with Blockwise Transformers for Near-Infinite Context". Of 2N chunks of the
sequence, rank r of N has the ones of number r and 2N - 1 - r, so that a causal mask leaves all ranks the same to do
(Grattafiori et al. 2024, "The Llama 3 Herd of Models", section 3.3.2).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import P2POp, ProcessGroup

from parbench.models.nn.kernels import Mixture, differentiate, mix

Halves = tuple[slice, slice]
"""Some of a rank's queries, and some of the keys that it holds at the moment."""


class RingAttention:
    """Causal attention between all positions of sequences, of which each rank of `group` (None: all ranks) has some."""

    def __init__(self, group: ProcessGroup | None) -> None:
        self._group = group
        self._rank = distributed.get_rank(group)
        self._ranks = distributed.get_world_size(group)

    def positions(self, seq_len: int) -> Tensor:
        """The positions of this rank, in order: those of an early chunk of the sequence and of a late one."""
        chunks = torch.arange(seq_len).chunk(2 * self._ranks)
        return torch.cat((chunks[self._rank], chunks[-1 - self._rank]))

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        is_causal: bool = True,  # noqa: ARG002 - always
        enable_gqa: bool = False,  # noqa: ARG002 - as shapes say
    ) -> Tensor:
        """Takes those of this rank's positions, and gives what all positions up to each of them make of it."""
        mixed: Tensor = _Round.apply(self, query, key, value)  # type: ignore[no-untyped-call]
        return mixed

    def go_round(self, own: Tensor) -> Iterator[tuple[int, Tensor]]:
        """What each rank has, with its number: this rank's `own`, then what arrives. The next one travels meanwhile."""
        held = own
        for step in range(self._ranks):
            arrive = self.pass_on(held) if step < self._ranks - 1 else None
            yield (self._rank - step) % self._ranks, held
            if arrive is not None:
                held = arrive()

    def pass_on(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Starts to hand a tensor to the next rank. What it returns waits for that of the rank before, and gives it."""
        arriving = torch.empty_like(tensor)
        following, before = (self._rank + 1) % self._ranks, (self._rank - 1) % self._ranks
        works = distributed.batch_isend_irecv(
            [
                P2POp(distributed.isend, tensor, group=self._group, group_peer=following),
                P2POp(distributed.irecv, arriving, group=self._group, group_peer=before),
            ]
        )

        def arrive() -> Tensor:
            for work in works:
                work.wait()
            return arriving

        return arrive

    def find_visible(self, source: int, length: int) -> Halves:
        """Which of this rank's queries see which keys of rank `source`, another one; each has `length` positions."""
        every, early, late = slice(length), slice(length // 2), slice(length // 2, length)
        # Between two ranks, the lower one's chunks are the first and the last, and the other's lie between them.
        return (every, early) if source < self._rank else (late, every)


class _Round(torch.autograd.Function):
    """A round of keys and values past all queries and, backward, another one with their gradients behind them."""

    @staticmethod
    def forward(ctx: Any, ring: RingAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        guests = ring.go_round(torch.stack((key, value)))
        next(guests)
        whole = mix(query, key, value, is_causal=True).copied()
        for source, pair in guests:
            queries, seen = ring.find_visible(source, query.shape[2])
            keys, values = pair[:, :, :, seen]
            whole.of(queries).take_in(mix(query[:, :, queries], keys, values, is_causal=False))
        mixed = whole.values.to(query.dtype)
        ctx.ring = ring
        ctx.save_for_backward(query, key, value, mixed, whole.log_sums)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, *mixture = ctx.saved_tensors
        ring, whole = ctx.ring, Mixture(*mixture)
        guests = ring.go_round(torch.stack((key, value)))
        next(guests)
        of_query, *own = differentiate(gradient, query, key, value, whole, is_causal=True)
        # Sums of many parts, in the type of sums.
        of_query, of_pair = (part.to(whole.log_sums.dtype) for part in (of_query, torch.stack(own)))
        for source, pair in guests:
            arrive = ring.pass_on(of_pair)
            queries, seen = ring.find_visible(source, query.shape[2])
            keys, values = pair[:, :, :, seen]
            some = gradient[:, :, queries], query[:, :, queries]
            part, *others = differentiate(*some, keys, values, whole.of(queries), is_causal=False)
            of_query[:, :, queries] += part
            of_pair = arrive()
            of_pair[:, :, :, seen] += torch.stack(others)
        of_key, of_value = ring.pass_on(of_pair)().to(key.dtype)
        return None, of_query.to(query.dtype), of_key, of_value
