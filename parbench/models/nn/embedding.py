"""Embeddings: token ids (batch, seq_len) → (batch, seq_len, d_model)."""

import torch
from torch import Tensor, nn

from parbench.models.nn.cache import Start, take_rows


class TokenEmbedding(nn.Embedding):
    """Token embeddings for families that need no positions, or encode them elsewhere."""

    def forward(self, tokens: Tensor, start: Start = 0) -> Tensor:  # noqa: ARG002 - the same at any position
        """The rows of the tokens; `start` makes no difference."""
        return super().forward(tokens)


class TokenAndPosition(nn.Module):
    """The sum of token and learnt position embeddings."""

    def __init__(self, vocab_size: int, seq_len: int, d_model: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, d_model)
        self.position = nn.Parameter(torch.empty(seq_len, d_model))
        self._kept: Tensor | None = None
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position, std=0.02)

    def keep_positions(self, positions: Tensor) -> None:
        """From now on tokens are those at `positions` of their sequence, and not at the first ones."""
        self._kept = positions

    def forward(self, tokens: Tensor, start: Start = 0) -> Tensor:
        """`start` is the position of the first token."""
        embedded: Tensor = self.token(tokens)
        if self._kept is not None:
            return embedded + self.position[self._kept]
        return embedded + take_rows(self.position, start, tokens.shape[1])
