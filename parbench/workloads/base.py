"""What a model family is: embed → blocks → head, so that every strategy finds its seams without knowing the family."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from parbench.registry import Registry
from parbench.scenario import ModelSpec

if TYPE_CHECKING:
    from torch import nn

FAMILIES: "Registry[Family]" = Registry("parbench.workloads")


class Family(ModelSpec, ABC):
    """A model family and its sizes, as written under `model:`. Defining a subclass registers it under its `kind`.

    A subclass fixes `kind` with a `Literal` and builds three sorts of parts. A part maps a tensor to a tensor:
    `embed` token ids (batch, seq_len) to hidden states, each block hidden states to hidden states of the same shape,
    and `head` hidden states to logits (batch, seq_len, vocab_size). Parts import torch when they are built.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        FAMILIES.add(str(cls.model_fields["kind"].default), cls)

    @property
    @abstractmethod
    def n_blocks(self) -> int:
        """How many blocks there are between `embed` and `head`."""

    @abstractmethod
    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """Token ids (batch, seq_len) → hidden states."""

    @abstractmethod
    def block(self) -> "nn.Module":
        """One block, freshly initialised: hidden states → hidden states of the same shape."""

    @abstractmethod
    def head(self, vocab_size: int) -> "nn.Module":
        """Hidden states → logits (batch, seq_len, vocab_size)."""
