"""A causal language model of the transformers library, as a module that returns logits only."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


class CausalLM(nn.Module):
    """Token ids (batch, seq_len) → logits (batch, seq_len, vocab_size), through `model`, a `PreTrainedModel`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits, computed without a cache."""
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits

    @property
    def blocks(self) -> list[nn.Module]:
        """The outermost modules that the model's class says must not be split, in order."""
        return list(_find_outermost(self.model, frozenset(self.model._no_split_modules or ())))

    def checkpoint_blocks(self) -> None:
        """Makes blocks compute their activations again in the backward pass, with the library's own checkpointing."""
        # The second name is that of releases before 5.20.
        enable = getattr(self.model, "activation_checkpointing_enable", self.model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})


def _find_outermost(module: nn.Module, class_names: frozenset[str]) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child).__name__ in class_names:
            yield child
        else:
            yield from _find_outermost(child, class_names)
