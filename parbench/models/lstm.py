"""LSTM language model: embedding → pre-norm residual LSTM blocks → linear head."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from parbench.models.base import Family, Use, Work, fill_from_preset

if TYPE_CHECKING:
    from torch import nn


class LSTM(Family):
    """`layers` blocks `x + lstm(norm(x))` of width `d_model` (Hochreiter & Schmidhuber 1997, pre-norm residuals).

    Presets have the sizes of Zaremba et al. 2014, "Recurrent Neural Network Regularization", and laptop sizes.
    """

    generates = True
    decodes_in_place = True
    chunks_loss = True
    imports = ("parbench.models.nn.embedding", "parbench.models.nn.lstm")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "lstm-laptop": {"layers": 4, "d_model": 128},
        "lstm-desktop": {"layers": 4, "d_model": 512},
        "zaremba-medium": {"layers": 2, "d_model": 650, "vocab_size": 10_000},
        "zaremba-large": {"layers": 2, "d_model": 1500, "vocab_size": 10_000},
    }

    kind: Literal["lstm"] = "lstm"
    preset: Literal["lstm-laptop", "lstm-desktop", "zaremba-medium", "zaremba-large"] | None = None
    layers: Annotated[int, Field(ge=1, le=1000)] = 4
    d_model: Annotated[int, Field(ge=1, le=65_536)] = 256

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_preset(cls, data: Any) -> Any:
        return fill_from_preset(cls.presets, data)

    @property
    def n_blocks(self) -> int:
        """One block a layer."""
        return self.layers

    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":  # noqa: ARG002 - recurrence needs no positions
        """Token ids (batch, seq_len) → (batch, seq_len, d_model)."""
        from parbench.models.nn.embedding import TokenEmbedding

        return TokenEmbedding(vocab_size, self.d_model)

    def block(self, seq_len: int) -> "nn.Module":  # noqa: ARG002 - recurrence works for any length
        """(batch, seq_len, d_model) → the same shape."""
        from parbench.models.nn.lstm import ResidualLSTM

        return ResidualLSTM(self.d_model)

    def head(self, vocab_size: int) -> "nn.Module":
        """(batch, seq_len, d_model) → logits (batch, seq_len, vocab_size)."""
        from torch import nn

        return nn.Sequential(nn.LayerNorm(self.d_model), nn.Linear(self.d_model, vocab_size))

    def work(self, vocab_size: int, seq_len: int) -> Work:  # noqa: ARG002 - each position costs the same
        """Four gates, each with an input and a recurrent product; two operations a weight."""
        return Work(embed=0.0, block=16.0 * self.d_model**2, head=2.0 * self.d_model * vocab_size)

    def refusal(self, use: Use, device_kind: str) -> str | None:
        """Precisions that torch has no LSTM for, or casts to another; and what lies inside of its kernel."""
        if use.precision == "bf16" and device_kind == "cuda":
            return (
                "torch's autocast casts LSTMs on CUDA to fp16 whatever it is asked for, so a loss scale would be "
                "missing; use fp16, tf32 or fp32"
            )
        if use.precision == "fp16" and device_kind == "cpu":
            return "torch has no fp16 LSTM kernel for CPUs; use bf16"
        if use.activation_checkpointing == "selective":
            return (
                "an LSTM's products lie inside of one kernel, or are changed in place where there is none: selective "
                "checkpointing can keep none of them; use full or {every: 2}"
            )
        return None

    def tensor_refusal(self, degree: int) -> str:  # noqa: ARG002 - however many devices
        """Split gates need the whole hidden state, gathered from all devices, at every position."""
        return (
            "an LSTM's gates at one position need the whole hidden state of the position before: split over devices, "
            "every layer would wait for an all-gather at every position, and no fused kernel could be used"
        )

    def context_refusal(self) -> str:
        """Positions meet in the state, which goes from each to the next."""
        return (
            "an LSTM's state at one position needs that of the position before: of devices that share a sequence, each "
            "would wait for the one before it"
        )
