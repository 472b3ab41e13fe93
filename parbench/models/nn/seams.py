"""Finds out whether a module has seams: `embed`, `blocks` and `head` that, one after another, give its own logits."""

from itertools import combinations

import torch
from torch import Tensor, nn


def find_seams(model: nn.Module, tokens: Tensor, logits: Tensor) -> tuple[int, ...] | str:
    """The numbers of parameters of each block and the head; or, in words, why the module cannot be cut into stages.

    `logits` are the module's output for `tokens` (batch, seq_len). The module must be in evaluation mode.
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
        mismatch = _find_mismatch(embed, [*blocks], head, tokens, logits)
    except Exception as error:  # noqa: BLE001 - whatever the parts raise, the model itself works
        mismatch = f"embed → blocks → head raises {type(error).__name__}: {str(error)[:200]}"
    return mismatch or tuple(sum(parameter.numel() for parameter in part.parameters()) for part in (*blocks, head))


def _find_mismatch(
    embed: nn.Module, blocks: list[nn.Module], head: nn.Module, tokens: Tensor, logits: Tensor
) -> str | None:
    """Where the parts, one after another, do something else than the module; None where they give its logits."""
    hidden = embed(tokens)
    if not isinstance(hidden, Tensor) or hidden.dim() != 3 or hidden.shape[:2] != tokens.shape:
        return f"embed gives {name_kind(hidden)} instead of hidden states (batch, seq_len, width)"
    for index, block in enumerate(blocks):
        after = block(hidden)
        if not isinstance(after, Tensor) or (after.shape, after.dtype) != (hidden.shape, hidden.dtype):
            return f"block {index} makes {name_kind(after)} of {name_kind(hidden)}, and must keep the shape"
        hidden = after
    composed = head(hidden)
    if (
        not isinstance(composed, Tensor)
        or composed.shape != logits.shape
        or not torch.allclose(composed, logits, rtol=1e-4, atol=1e-5)
    ):
        return "embed → blocks → head does not give its own logits"
    return None


def name_kind(value: object) -> str:
    """What a value is, in words: a tensor's shape, or the type of anything else."""
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
