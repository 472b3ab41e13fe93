"""The skeleton that families fill: embed → blocks → head, or any contiguous part of it; or a model without seams."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from parbench.data.batches import stable_seed
from parbench.models.base import Family
from parbench.models.nn.language_model import LanguageModel, OnPart, WholeModel
from parbench.models.whole import WholeFamily

T = TypeVar("T")


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
