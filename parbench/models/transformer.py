"""GPT-style Transformer language model: pre-norm blocks of causal attention and an MLP."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from parbench.models.base import Family, Heads, TensorPlan, Work, fill_from_preset
from parbench.models.shape import Shape

if TYPE_CHECKING:
    from torch import nn


GPT2_VOCABULARY = 50_257


class Transformer(Family):
    """`layers` pre-norm blocks of width `d_model` with `heads` attention heads (GPT-2, Radford et al. 2019).

    The MLP is four times as wide as the model; positions are learnt; there is no dropout, so that strategies can be
    compared loss by loss. Embedding and head do not share weights, so that a stage can hold one without the other; the
    `gpt2` presets, whose names count tied weights, have that many more parameters.
    """

    generates = True
    decodes_in_place = True
    chunks_loss = True
    imports = ("parbench.models.nn.embedding", "parbench.models.nn.block")
    stacks = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt-laptop": {"layers": 4, "d_model": 128, "heads": 4},
        "gpt-desktop": {"layers": 6, "d_model": 384, "heads": 6},
        "gpt2-124m": {"layers": 12, "d_model": 768, "heads": 12, "vocab_size": GPT2_VOCABULARY},
        "gpt2-350m": {"layers": 24, "d_model": 1024, "heads": 16, "vocab_size": GPT2_VOCABULARY},
        "gpt2-774m": {"layers": 36, "d_model": 1280, "heads": 20, "vocab_size": GPT2_VOCABULARY},
        "gpt2-1.5b": {"layers": 48, "d_model": 1600, "heads": 25, "vocab_size": GPT2_VOCABULARY},
    }

    kind: Literal["transformer"] = "transformer"
    preset: Literal["gpt-laptop", "gpt-desktop", "gpt2-124m", "gpt2-350m", "gpt2-774m", "gpt2-1.5b"] | None = None
    layers: Annotated[int, Field(ge=1, le=1000)] = 4
    d_model: Annotated[int, Field(ge=1, le=65_536)] = 256
    heads: Annotated[int, Field(ge=1, le=1024)] = 4

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_preset(cls, data: Any) -> Any:
        return fill_from_preset(cls.presets, data)

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
        """Token ids (batch, seq_len) → (batch, seq_len, d_model)."""
        from parbench.models.nn.embedding import TokenAndPosition

        return TokenAndPosition(vocab_size, seq_len, self.d_model)

    def block(self, seq_len: int) -> "nn.Module":  # noqa: ARG002 - the embedding encodes positions
        """(batch, seq_len, d_model) → the same shape."""
        from torch import nn

        from parbench.models.nn.attention import Attention
        from parbench.models.nn.block import PreNormBlock

        width = self.d_model
        mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        attention = Attention(width, self.heads, self.heads, bias=True)
        return PreNormBlock(nn.LayerNorm(width), attention, nn.LayerNorm(width), mlp)

    def head(self, vocab_size: int) -> "nn.Module":
        """(batch, seq_len, d_model) → logits (batch, seq_len, vocab_size)."""
        from torch import nn

        return nn.Sequential(nn.LayerNorm(self.d_model), nn.Linear(self.d_model, vocab_size, bias=False))

    def work(self, vocab_size: int, seq_len: int) -> Work:
        """Counted as in Chowdhery et al. 2022 (PaLM, appendix B): attention as if it were not causal."""
        block = 24.0 * self.d_model**2 + 4.0 * seq_len * self.d_model
        return Work(embed=0.0, block=block, head=2.0 * self.d_model * vocab_size)

    def shape(self) -> Shape | None:
        """An MLP four times as wide as the model."""
        return Shape(self.layers, self.d_model, self.heads, self.heads, 4 * self.d_model)

    def tensor_refusal(self, degree: int) -> str | None:
        """Each device takes whole heads."""
        if self.heads % degree:
            return f"{self.heads} heads do not divide into {degree} tensor-parallel parts"
        return None

    def tensor_plan(self, *, sequence_parallel: bool) -> TensorPlan:
        """Matrices into heads and MLP by columns, out of them by rows (Shoeybi et al. 2019, Megatron-LM)."""
        from parbench.models.nn.splitting import split_blocks

        return TensorPlan(
            *split_blocks(
                columns=("attention.query_key_value", "mlp.0"),
                rows=("attention.output", "mlp.2"),
                sequence_parallel=sequence_parallel,
            )
        )

    def attention_heads(self) -> Heads | None:
        """Every head has keys and values of its own."""
        return Heads(queries=self.heads, keys=self.heads, size=self.d_model // self.heads)
