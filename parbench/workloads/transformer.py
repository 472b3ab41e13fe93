"""GPT-style Transformer language model: pre-norm blocks of causal attention and an MLP."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from parbench.workloads.base import Family

if TYPE_CHECKING:
    from torch import Tensor, nn


class Transformer(Family):
    """`layers` pre-norm blocks of width `d_model` with `heads` attention heads (GPT-2, Radford et al. 2019).

    The MLP is four times as wide as the model; positions are learnt; there is no dropout, so that strategies can be
    compared loss by loss; embedding and head have weights of their own, so that stages can hold one without the other.
    """

    kind: Literal["transformer"] = "transformer"
    layers: Annotated[int, Field(ge=1, le=1000)] = 4
    d_model: Annotated[int, Field(ge=1, le=65_536)] = 256
    heads: Annotated[int, Field(ge=1, le=1024)] = 4

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(
                f"d_model {self.d_model} does not divide into {self.heads} heads; choose heads that divide it"
            )
        return self

    @property
    def n_blocks(self) -> int:
        """One block a layer."""
        return self.layers

    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """Token ids (batch, seq_len) → (batch, seq_len, d_model), the sum of token and position embeddings."""
        import torch
        from torch import nn

        class TokenAndPosition(nn.Module):
            def __init__(self, d_model: int) -> None:
                super().__init__()
                self.token = nn.Embedding(vocab_size, d_model)
                self.position = nn.Parameter(torch.empty(seq_len, d_model))
                nn.init.normal_(self.token.weight, std=0.02)
                nn.init.normal_(self.position, std=0.02)

            def forward(self, tokens: "Tensor") -> "Tensor":
                embedded: Tensor = self.token(tokens)
                return embedded + self.position[: tokens.shape[1]]

        return TokenAndPosition(self.d_model)

    def block(self) -> "nn.Module":
        """(batch, seq_len, d_model) → the same shape."""
        from torch import nn
        from torch.nn.functional import scaled_dot_product_attention

        class Block(nn.Module):
            def __init__(self, d_model: int, heads: int) -> None:
                super().__init__()
                self.heads = heads
                self.attention_norm = nn.LayerNorm(d_model)
                self.query_key_value = nn.Linear(d_model, 3 * d_model)
                self.attention_output = nn.Linear(d_model, d_model)
                self.mlp_norm = nn.LayerNorm(d_model)
                self.mlp = nn.Sequential(
                    nn.Linear(d_model, 4 * d_model), nn.GELU(approximate="tanh"), nn.Linear(4 * d_model, d_model)
                )

            def attention(self, hidden: "Tensor") -> "Tensor":
                batch, length, width = hidden.shape
                projected = self.query_key_value(hidden).split(width, dim=-1)
                query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in projected)
                mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
                output: Tensor = self.attention_output(mixed.transpose(1, 2).reshape(batch, length, width))
                return output

            def forward(self, hidden: "Tensor") -> "Tensor":
                hidden = hidden + self.attention(self.attention_norm(hidden))
                transformed: Tensor = self.mlp(self.mlp_norm(hidden))
                return hidden + transformed

        return Block(self.d_model, self.heads)

    def head(self, vocab_size: int) -> "nn.Module":
        """(batch, seq_len, d_model) → logits (batch, seq_len, vocab_size)."""
        from torch import nn

        return nn.Sequential(nn.LayerNorm(self.d_model), nn.Linear(self.d_model, vocab_size, bias=False))
