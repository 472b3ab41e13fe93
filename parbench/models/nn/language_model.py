"""A language model, or a stage of one, made of the parts of a family."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from parbench.models.checkpointing import Checkpointing, is_checkpointed
from parbench.models.nn.cache import Start
from parbench.models.nn.checkpointing import run_checkpointed
from parbench.models.whole import WholeFamily

PartHook = Callable[[nn.Module, str], None]
"""Is called with a part and its name: `embed`, `block` or `head`.

Of a model without seams the names are `block`, for each of its units, and then `rest` or, without units, `whole`.
"""


HeadLoss = Callable[[nn.Module, Tensor], Tensor]
"""Computes a loss from the head and the hidden states (batch, seq_len, width) that it would take."""


class LanguageModel(nn.Module):
    """A whole model, or a stage of it: `embed` only at the start, `head` only at the end.

    A whole model maps token ids (batch, seq_len) to logits (batch, seq_len, vocab_size). Blocks keep the numbers that
    they have in the whole model, so that a parameter has the same name in every stage. With `autocast`, matrix
    products are computed in that type; with `checkpointing`, blocks compute activations again when their gradients are,
    with the same random numbers if the model `draws_random` ones. What blocks give beside hidden states joins the loss
    that is computed within the forward pass.
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
        self.checkpointing: Checkpointing = False
        self.draws_random = draws_random

    def forward(
        self,
        hidden: Tensor,
        caches: Sequence[Any] | None = None,
        start: Start = 0,
        *,
        loss: HeadLoss | None = None,
    ) -> Tensor:
        """Token ids or hidden states in; hidden states or logits out.

        With `caches`, one a block, the tokens follow those in the caches, the first of them at position `start`, and
        logits are those of the last position alone: (batch, 1, vocab_size). With `loss`, what it computes comes out of
        a whole model: its logits need never be whole.
        """
        # Entered here, because replicas run in threads and stages in a schedule, outside of the caller's context.
        with torch.autocast(hidden.device.type, self.autocast) if self.autocast else nullcontext():
            if caches is not None:
                return self._continue(hidden, caches, start)
            hidden, auxiliary = self._run_blocks(hidden)
            if self.head is None:
                return hidden
            return self.head(hidden) if loss is None else add_unseen(loss(self.head, hidden), auxiliary)

    def _run_blocks(self, hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Hidden states, and what blocks add to the loss."""
        if self.embed is not None:
            hidden = self.embed(hidden)
        checkpointing = self.checkpointing if torch.is_grad_enabled() else False
        auxiliary = []
        for number, block in self.blocks.items():
            output = (
                run_checkpointed(block, hidden, checkpointing, draws_random=self.draws_random)
                if is_checkpointed(int(number), checkpointing)
                else block(hidden)
            )
            hidden, *added = output if isinstance(output, tuple) else (output,)
            auxiliary += added
        return hidden, auxiliary

    def _continue(self, hidden: Tensor, caches: Sequence[Any], start: Start) -> Tensor:
        if self.embed is not None:
            hidden = self.embed(hidden, start)
        for block, cache in zip(self.blocks.values(), caches, strict=True):
            hidden = block(hidden, cache)
        return hidden if self.head is None else self.head(hidden[:, -1:])

    def checkpoint_blocks(self, checkpointing: Checkpointing) -> None:
        """Makes blocks compute activations again in the backward pass."""
        self.checkpointing = checkpointing

    def new_caches(self, length: int) -> list[Any]:
        """Empty caches of up to `length` positions, one a block, for one batch of sequences."""
        return [block.new_cache(length) for block in self.blocks.values()]  # type: ignore[operator]


def add_unseen(loss: Tensor, auxiliary: Sequence[Tensor]) -> Tensor:
    """A loss with the gradients of its sum with the auxiliary losses; its value stays what the model predicts."""
    if not auxiliary:
        return loss
    added = torch.stack([*auxiliary]).sum()
    return loss + (added - added.detach())


class WholeModel(nn.Module):
    """A model without seams, as its family built it: token ids (batch, seq_len) → logits (batch, seq_len, vocab_size).

    `autocast` is the type that matrix products are computed in.
    """

    def __init__(self, family: WholeFamily, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.autocast: torch.dtype | None = None
        self._family = family

    def checkpoint_blocks(self, checkpointing: Checkpointing) -> None:  # noqa: ARG002 - they know only all of it
        """Makes the family's units compute all of their activations again in the backward pass."""
        self._family.checkpoint_units(self.model)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (batch, seq_len) → logits (batch, seq_len, vocab_size)."""
        with torch.autocast(tokens.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            logits: Tensor = self.model(tokens)
            return logits
