"""Families whose models are built in one go: users' own models, and those of other libraries."""

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from parbench.models.base import Family

if TYPE_CHECKING:
    from torch import nn


def _require_plain(values: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must be plain text, finite numbers, lists and mappings") from None
    return values


Values = Annotated[dict[str, Any], Field(default_factory=dict), AfterValidator(_require_plain)]
"""Arguments for code outside of parbench, by name; a list among them makes a matrix."""


class WholeFamily(Family, ABC):
    """A family whose models are built in one go, and not part by part.

    Where `n_blocks` is not 0, the model has `embed`, `blocks` and `head`, and can be cut into stages: each rank builds
    the whole model and keeps its stage. Where it is 0, only strategies that need the whole model can run it.
    """

    draws_random: ClassVar[bool] = True

    @property
    def n_blocks(self) -> int:
        """0: no seams, unless a subclass finds some."""
        return 0

    @abstractmethod
    def whole(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """Token ids (batch, seq_len) → logits (batch, seq_len, vocab_size); freshly initialised."""

    def units(self, model: "nn.Module") -> "list[nn.Module]":  # noqa: ARG002 - for overriding
        """The modules of a model without seams that are sharded and compiled one by one, in order; empty by default."""
        return []

    def checkpoint_units(self, model: "nn.Module") -> None:
        """Makes the units of a model without seams compute their activations again in the backward pass."""
        raise NotImplementedError(self.kind)

    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """Is not built on its own."""
        raise NotImplementedError(self.kind)

    def block(self, seq_len: int) -> "nn.Module":
        """Is not built on its own."""
        raise NotImplementedError(self.kind)

    def head(self, vocab_size: int) -> "nn.Module":
        """Is not built on its own."""
        raise NotImplementedError(self.kind)
