"""The sizes of a decoder or encoder of Transformer blocks: what a model of its cost has to know of it."""

from typing import NamedTuple


class Shape(NamedTuple):
    """`layers` blocks of `width` channels, with `heads` heads that share `key_value_heads` keys and values.

    The MLP is `mlp_width` wide; `gated` ones have three matrices, the others two. `causal` attention looks back only.
    `scored` is the share of tokens whose logits are computed: of encoders it is the share of masked tokens.
    """

    layers: int
    width: int
    heads: int
    key_value_heads: int
    mlp_width: int
    gated: bool = False
    causal: bool = True
    scored: float = 1.0

    @property
    def head_size(self) -> float:
        """Channels of a head; a fraction where the width does not divide, as published rows have it at times."""
        return self.width / self.heads

    def block_parameters(self) -> float:
        """Weights of the matrices of one block."""
        attention = 2 * self.width**2 + 2 * self.width * self.key_value_heads * self.head_size
        return attention + (3 if self.gated else 2) * self.width * self.mlp_width

    def parameters(self, vocab_size: int) -> float:
        """Weights of all matrices, with one matrix for the embedding and the head, as publications count them."""
        return self.layers * self.block_parameters() + self.width * vocab_size
