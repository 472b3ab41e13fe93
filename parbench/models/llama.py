"""Llama-style language model: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from parbench.models.base import Family, Heads, TensorPlan, Work, fill_from_preset
from parbench.models.shape import Shape

if TYPE_CHECKING:
    from torch import nn


class Llama(Family):
    """`layers` blocks of width `d_model` (Touvron et al. 2023, Llama 2; Grattafiori et al. 2024, Llama 3).

    Each of `key_value_heads` (default: `heads`) serves an equal group of heads. The MLP is `mlp_width` wide (default:
    8/3 of the model, rounded up to a multiple of 64). Positions are rotary, with base `rope_base`.
    """

    generates = True
    decodes_in_place = True
    chunks_loss = True
    imports = ("parbench.models.nn.embedding", "parbench.models.nn.block", "parbench.models.nn.llama")
    stacks = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "llama-laptop": {"layers": 4, "d_model": 128, "heads": 4, "key_value_heads": 2},
        "tinyllama-1.1b": {
            "layers": 22,
            "d_model": 2048,
            "heads": 32,
            "key_value_heads": 4,
            "mlp_width": 5632,
            "vocab_size": 32_000,
        },
        "llama3.2-1b": {
            "layers": 16,
            "d_model": 2048,
            "heads": 32,
            "key_value_heads": 8,
            "mlp_width": 8192,
            "vocab_size": 128_256,
            "rope_base": 500_000.0,
        },
    }

    kind: Literal["llama"] = "llama"
    preset: Literal["llama-laptop", "tinyllama-1.1b", "llama3.2-1b"] | None = None
    layers: Annotated[int, Field(ge=1, le=1000)] = 4
    d_model: Annotated[int, Field(ge=1, le=65_536)] = 256
    heads: Annotated[int, Field(ge=1, le=1024)] = 4
    key_value_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    mlp_width: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    rope_base: Annotated[float, Field(gt=1)] = 10_000.0

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_preset(cls, data: Any) -> Any:
        return fill_from_preset(cls.presets, data)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % (2 * self.heads):
            raise ValueError(f"d_model {self.d_model} does not divide into {self.heads} heads of an even size")
        if self.heads % self._key_value_heads:
            raise ValueError(f"{self.heads} heads do not divide into {self._key_value_heads} key_value_heads")
        return self

    @property
    def _key_value_heads(self) -> int:
        return self.key_value_heads or self.heads

    @property
    def _mlp_width(self) -> int:
        return self.mlp_width or -(-8 * self.d_model // 3 // 64) * 64

    @property
    def n_blocks(self) -> int:
        """One block a layer."""
        return self.layers

    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":  # noqa: ARG002 - attention encodes positions
        """Token ids (batch, seq_len) → (batch, seq_len, d_model)."""
        from parbench.models.nn.embedding import TokenEmbedding

        return TokenEmbedding(vocab_size, self.d_model)

    def block(self, seq_len: int) -> "nn.Module":
        """(batch, seq_len, d_model) → the same shape."""
        from torch import nn

        from parbench.models.nn.attention import Attention
        from parbench.models.nn.block import PreNormBlock
        from parbench.models.nn.llama import RotaryPositions, SwiGLU

        rotary = RotaryPositions(self.d_model // self.heads, seq_len, self.rope_base)
        return PreNormBlock(
            nn.RMSNorm(self.d_model, eps=1e-5),
            Attention(self.d_model, self.heads, self._key_value_heads, bias=False, rotate=rotary),
            nn.RMSNorm(self.d_model, eps=1e-5),
            SwiGLU(self.d_model, self._mlp_width),
        )

    def head(self, vocab_size: int) -> "nn.Module":
        """(batch, seq_len, d_model) → logits (batch, seq_len, vocab_size)."""
        from torch import nn

        return nn.Sequential(nn.RMSNorm(self.d_model, eps=1e-5), nn.Linear(self.d_model, vocab_size, bias=False))

    def work(self, vocab_size: int, seq_len: int) -> Work:
        """Counted as in Chowdhery et al. 2022 (PaLM, appendix B): attention as if it were not causal."""
        width, head_size = self.d_model, self.d_model // self.heads
        weights = 2 * width**2 + 2 * width * self._key_value_heads * head_size + 3 * width * self._mlp_width
        return Work(embed=0.0, block=2.0 * weights + 4.0 * seq_len * width, head=2.0 * width * vocab_size)

    def shape(self) -> Shape:
        """Three matrices in the MLP, and fewer keys and values than heads."""
        return Shape(self.layers, self.d_model, self.heads, self._key_value_heads, self._mlp_width, gated=True)

    def tensor_refusal(self, degree: int) -> str | None:
        """Each device takes whole heads and an equal part of the MLP."""
        for count, what in ((self._key_value_heads, "key_value_heads"), (self._mlp_width, "channels of the MLP")):
            if count % degree:
                return f"{count} {what} do not divide into {degree} tensor-parallel parts"
        return None

    def tensor_plan(self, *, sequence_parallel: bool) -> TensorPlan:
        """Matrices into heads and MLP by columns, out of them by rows (Shoeybi et al. 2019, Megatron-LM)."""
        from parbench.models.nn.splitting import split_blocks

        return TensorPlan(
            *split_blocks(
                columns=("attention.query_key_value", "mlp.gate", "mlp.up"),
                rows=("attention.output", "mlp.down"),
                sequence_parallel=sequence_parallel,
            )
        )

    def attention_heads(self) -> Heads:
        """Groups of heads share keys and values."""
        return Heads(queries=self.heads, keys=self._key_value_heads, size=self.d_model // self.heads)
