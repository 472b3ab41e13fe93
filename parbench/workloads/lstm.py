"""LSTM language model: embedding → pre-norm residual LSTM blocks → linear head."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from parbench.workloads.base import Family

if TYPE_CHECKING:
    from torch import Tensor, nn


class LSTM(Family):
    """`layers` blocks `x + lstm(norm(x))` of width `d_model` (Hochreiter & Schmidhuber 1997, pre-norm residuals)."""

    kind: Literal["lstm"] = "lstm"
    layers: Annotated[int, Field(ge=1, le=1000)] = 4
    d_model: Annotated[int, Field(ge=1, le=65_536)] = 256

    @property
    def n_blocks(self) -> int:
        """One block a layer."""
        return self.layers

    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":  # noqa: ARG002 - recurrence needs no positions
        """Token ids (batch, seq_len) → (batch, seq_len, d_model)."""
        from torch import nn

        return nn.Embedding(vocab_size, self.d_model)

    def block(self) -> "nn.Module":
        """(batch, seq_len, d_model) → the same shape; the residual keeps outputs and gradients contiguous."""
        from torch import nn

        class ResidualLSTM(nn.Module):
            def __init__(self, d_model: int) -> None:
                super().__init__()
                self.norm = nn.LayerNorm(d_model)
                self.lstm = nn.LSTM(d_model, d_model, batch_first=True)

            def forward(self, hidden: "Tensor") -> "Tensor":
                output: Tensor = self.lstm(self.norm(hidden))[0]
                return hidden + output

        return ResidualLSTM(self.d_model)

    def head(self, vocab_size: int) -> "nn.Module":
        """(batch, seq_len, d_model) → logits (batch, seq_len, vocab_size)."""
        from torch import nn

        return nn.Sequential(nn.LayerNorm(self.d_model), nn.Linear(self.d_model, vocab_size))
