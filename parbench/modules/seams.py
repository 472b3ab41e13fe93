"""Whether a module has seams: `embed`, `blocks` and `head` whose composition gives the module's own logits."""

from itertools import combinations

import torch
from torch import Tensor, nn


def count_blocks(model: nn.Module, tokens: Tensor, logits: Tensor) -> int | str:
    """How many blocks lie between `embed` and `head`; or, in words, why stages cannot be made of the module.

    `logits` are what the module gives for `tokens` (batch, seq_len). Both, and the parts, are to be in evaluation mode.
    """
    embed, blocks, head = (getattr(model, name, None) for name in ("embed", "blocks", "head"))
    if not (isinstance(embed, nn.Module) and isinstance(head, nn.Module)):
        return "it has no modules embed and head"
    if not isinstance(blocks, nn.ModuleList | nn.Sequential) or len(blocks) == 0:
        return "it has no blocks in a ModuleList or Sequential"
    parts = {"embed": embed, **{f"block {index}": block for index, block in enumerate(blocks)}, "head": head}
    for (one, first), (other, second) in combinations(parts.items(), 2):
        if not {*first.parameters()}.isdisjoint(second.parameters()):
            return f"{one} and {other} share parameters"
    try:
        return _composed(embed, [*blocks], head, tokens, logits)
    except Exception as error:  # noqa: BLE001 - whatever the parts raise, the model itself works
        return f"embed → blocks → head raises {type(error).__name__}: {str(error)[:200]}"


def _composed(embed: nn.Module, blocks: list[nn.Module], head: nn.Module, tokens: Tensor, logits: Tensor) -> int | str:
    hidden = embed(tokens)
    if not isinstance(hidden, Tensor) or hidden.dim() != 3 or hidden.shape[:2] != tokens.shape:
        return f"embed gives {described(hidden)} instead of hidden states (batch, seq_len, width)"
    for index, block in enumerate(blocks):
        after = block(hidden)
        if not isinstance(after, Tensor) or (after.shape, after.dtype) != (hidden.shape, hidden.dtype):
            return f"block {index} makes {described(after)} of {described(hidden)}, and must keep the shape"
        hidden = after
    composed = head(hidden)
    if (
        not isinstance(composed, Tensor)
        or composed.shape != logits.shape
        or not torch.allclose(composed, logits, rtol=1e-4, atol=1e-5)
    ):
        return "embed → blocks → head does not give its own logits"
    return len(blocks)


def described(value: object) -> str:
    """A tensor by its shape, all else by its type."""
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
