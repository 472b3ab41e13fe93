"""The skeleton that families fill: embed → blocks → head, or any contiguous part of it; or a model without seams."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from parbench.workloads.base import Family
from parbench.workloads.whole import WholeFamily

T = TypeVar("T")

OnPart = Callable[[nn.Module, str], None]
"""Takes a part and what it is: `embed`, `block` or `head`; of a model without seams `block`, then `rest` or `whole`."""


class LanguageModel(nn.Module):
    """A whole model, or a stage of it: `embed` only at the start, `head` only at the end.

    A whole model maps token ids (batch, seq_len) to logits (batch, seq_len, vocab_size). Blocks keep the numbers that
    they have in the whole model, so that a parameter has the same name wherever it lies. With `autocast`, matrix
    products are computed in that type; with `checkpointing`, a block's activations are computed again when its
    gradients are (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"), with the same random numbers if
    it `draws_random` ones: to keep their state costs time.
    """

    def __init__(
        self,
        embed: nn.Module | None,
        blocks: dict[int, nn.Module],
        head: nn.Module | None,
        *,
        draws_random: bool = False,
    ) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleDict({str(index): block for index, block in blocks.items()})
        self.head = head
        self.autocast: torch.dtype | None = None
        self.checkpointing = False
        self.draws_random = draws_random

    def forward(self, hidden: Tensor, caches: Sequence[Any] | None = None, start: int = 0) -> Tensor:
        """Token ids or hidden states in; hidden states or logits out.

        With `caches`, one a block, the tokens follow those in the caches, the first of them at position `start`, and
        logits are those of the last position alone: (batch, 1, vocab_size).
        """
        # Entered here and not around the call: replicas run in threads of their own, stages in a schedule.
        with torch.autocast(hidden.device.type, self.autocast) if self.autocast else nullcontext():
            return self._through_parts(hidden) if caches is None else self._onward(hidden, caches, start)

    def _through_parts(self, hidden: Tensor) -> Tensor:
        if self.embed is not None:
            hidden = self.embed(hidden)
        again = self.checkpointing and torch.is_grad_enabled()
        for block in self.blocks.values():
            hidden = (
                checkpoint(block, hidden, use_reentrant=False, preserve_rng_state=self.draws_random)
                if again
                else block(hidden)
            )
        return hidden if self.head is None else self.head(hidden)

    def _onward(self, hidden: Tensor, caches: Sequence[Any], start: int) -> Tensor:
        if self.embed is not None:
            hidden = self.embed(hidden, start)
        for block, cache in zip(self.blocks.values(), caches, strict=True):
            hidden = block(hidden, cache)
        return hidden if self.head is None else self.head(hidden[:, -1:])

    def checkpoint_blocks(self) -> None:
        """Has blocks compute their activations again in the backward pass."""
        self.checkpointing = True

    def new_caches(self, length: int) -> list[Any]:
        """Empty memories of up to `length` positions, one a block, for one batch of sequences."""
        return [block.new_cache(length) for block in self.blocks.values()]  # type: ignore[operator]


class WholeModel(nn.Module):
    """A model without seams, as its family built it: token ids (batch, seq_len) → logits (batch, seq_len, vocab_size).

    `autocast` is the type that matrix products are computed in.
    """

    def __init__(self, family: WholeFamily, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.autocast: torch.dtype | None = None
        self._family = family

    def checkpoint_blocks(self) -> None:
        """Has the family's units compute their activations again in the backward pass."""
        self._family.checkpoint_units(self.model)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids in, logits out."""
        with torch.autocast(tokens.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            logits: Tensor = self.model(tokens)
            return logits


class _Makers(NamedTuple):
    """What makes each part of a model."""

    embed: Callable[[], nn.Module]
    block: Callable[[int], nn.Module]
    head: Callable[[], nn.Module]


def build_model(
    family: Family,
    *,
    vocab_size: int,
    seq_len: int,
    seed: str,
    blocks: range | None = None,
    ends: tuple[bool, bool] | None = None,
    on_part: OnPart | None = None,
) -> LanguageModel | WholeModel:
    """The model, or the stage of it that holds `blocks` and, as `ends` says, embedding and head.

    Every part is initialised from a seed of its own, so that a stage has exactly the values that the whole model has
    there, without ever building the rest. `on_part` gets each part as soon as it is built: what moves or splits it
    there keeps the whole model from ever being in one place. A family that builds its models in one go has one seed
    for all of it, and stages are cut out of it; without seams there is only the whole.
    """
    on_part = on_part or _leave
    makers = _Makers(
        embed=lambda: family.embed(vocab_size, seq_len),
        block=lambda _: family.block(seq_len),
        head=lambda: family.head(vocab_size),
    )
    if isinstance(family, WholeFamily):
        whole: Any = _seeded(f"{seed}/whole", lambda: family.whole(vocab_size, seq_len))
        if not family.n_blocks:
            return _without_seams(family, whole, on_part)
        makers = _Makers(lambda: whole.embed, lambda index: whole.blocks[index], lambda: whole.head)

    def built(name: str, build: Callable[[], nn.Module], number: object = "") -> nn.Module:
        part = _seeded(f"{seed}/{name}{number}", build)
        on_part(part, name)
        return part

    blocks = range(family.n_blocks) if blocks is None else blocks
    first, last = ends or (blocks.start == 0, blocks.stop == family.n_blocks)
    return LanguageModel(
        embed=built("embed", makers.embed) if first else None,
        blocks={index: built("block", partial(makers.block, index), index) for index in blocks},
        head=built("head", makers.head) if last else None,
        draws_random=family.draws_random,
    )


def _without_seams(family: WholeFamily, model: nn.Module, on_part: OnPart) -> WholeModel:
    """The units first, so that what is left holds nothing that has not been placed or split already."""
    units = family.units(model)
    for unit in units:
        on_part(unit, "block")
    on_part(model, "rest" if units else "whole")
    return WholeModel(family, model)


def _seeded(seed: str, build: Callable[[], T]) -> T:
    """What `build` makes with torch's generators at that seed; they go on afterwards as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed(seed))
        return build()


def _leave(part: nn.Module, name: str) -> None:
    """Does nothing with a part."""


def stable_seed(text: str) -> int:
    """A 63-bit seed that is the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
