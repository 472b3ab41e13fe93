"""Families whose models are built in one go: those that people bring, and those of other libraries."""

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from parbench.models.base import Family

if TYPE_CHECKING:
    from torch import nn


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must be plain text, finite numbers, lists and mappings") from None
    return values


Values = Annotated[dict[str, Any], Field(default_factory=dict), AfterValidator(_plain)]
"""Values by names that only somebody else knows; a list among them makes a matrix."""


class WholeFamily(Family, ABC):
    """A family whose models are built in one go, and not part by part.

    Where `n_blocks` is not 0, the model has `embed`, `blocks` and `head`, of which stages can be made; where it is 0,
    only strategies that take a model whole can be had. A stage is cut out of the whole model, which each rank builds.
    """

    draws_random: ClassVar[bool] = True

    @property
    def n_blocks(self) -> int:
        """None, unless a subclass knows better."""
        return 0

    @abstractmethod
    def whole(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """Token ids (batch, seq_len) → logits (batch, seq_len, vocab_size); freshly initialised."""

    def units(self, model: "nn.Module") -> "list[nn.Module]":  # noqa: ARG002 - for overriding
        """The modules within a model without seams that are sharded and compiled one by one, in order; maybe none."""
        return []

    def checkpoint_units(self, model: "nn.Module") -> None:
        """Has the units of a model without seams compute their activations again in the backward pass."""
        raise NotImplementedError(self.kind)

    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """Not built by itself."""
        raise NotImplementedError(self.kind)

    def block(self, seq_len: int) -> "nn.Module":
        """Not built by itself."""
        raise NotImplementedError(self.kind)

    def head(self, vocab_size: int) -> "nn.Module":
        """Not built by itself."""
        raise NotImplementedError(self.kind)
