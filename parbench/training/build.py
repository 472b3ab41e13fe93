"""Builds a model from its family: embed → blocks → head, or some consecutive part of it; or a model without seams."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from parbench.data.batches import stable_seed
from parbench.models.base import Family
from parbench.models.nn.language_model import LanguageModel, PartHook, WholeModel
from parbench.models.whole import WholeFamily

T = TypeVar("T")


class _Builders(NamedTuple):
    """Functions that build each part of a model."""

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
    on_part: PartHook | None = None,
) -> LanguageModel | WholeModel:
    """The model, or the stage of it that holds `blocks`; `ends` says whether it holds embedding and head.

    Every part is initialised from a seed of its own, so a stage has exactly the values that the whole model has there,
    and the rest need not be built. `on_part` is called with each part as soon as it is built; a hook that moves or
    splits the part keeps the whole model from ever being in one place. A family that builds its models in one go has
    one seed for all of it, and stages are cut out of that; a model without seams cannot be cut.
    """
    on_part = on_part or _keep
    builders = _Builders(
        embed=lambda: family.embed(vocab_size, seq_len),
        block=lambda _: family.block(seq_len),
        head=lambda: family.head(vocab_size),
    )
    if isinstance(family, WholeFamily):
        whole: Any = _build_seeded(f"{seed}/whole", lambda: family.whole(vocab_size, seq_len))
        if not family.n_blocks:
            return _without_seams(family, whole, on_part)
        builders = _Builders(lambda: whole.embed, lambda index: whole.blocks[index], lambda: whole.head)

    def build(name: str, builder: Callable[[], nn.Module], number: object = "") -> nn.Module:
        part = _build_seeded(f"{seed}/{name}{number}", builder)
        on_part(part, name)
        return part

    blocks = range(family.n_blocks) if blocks is None else blocks
    first, last = ends or (blocks.start == 0, blocks.stop == family.n_blocks)
    return LanguageModel(
        embed=build("embed", builders.embed) if first else None,
        blocks={index: build("block", partial(builders.block, index), index) for index in blocks},
        head=build("head", builders.head) if last else None,
        draws_random=family.draws_random,
    )


def _without_seams(family: WholeFamily, model: nn.Module, on_part: PartHook) -> WholeModel:
    """Calls the hook on each unit first, and then on the model, which by then is placed and split but for the rest."""
    units = family.units(model)
    for unit in units:
        on_part(unit, "block")
    on_part(model, "rest" if units else "whole")
    return WholeModel(family, model)


def _build_seeded(seed: str, build: Callable[[], T]) -> T:
    """What `build` returns with torch's generator at that seed. The generator's own state is unchanged afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed(seed))
        return build()


def _keep(part: nn.Module, name: str) -> None:
    """Leaves a part as it is."""
