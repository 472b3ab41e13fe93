"""The interface of model families: embed → blocks → head, so that strategies can cut any model at its seams."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Protocol, Self

from pydantic import Field

from parbench.base_types import Phase, Precision, Spec
from parbench.models.checkpointing import Checkpointing
from parbench.models.shape import Shape
from parbench.registry import Registry

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed.tensor.parallel import ParallelStyle

FAMILIES: "Registry[Family]" = Registry("parbench.models", group="parbench.workloads")


class Work(NamedTuple):
    """Floating-point operations of a forward pass per token: of `embed`, of each block, and of `head`."""

    embed: float
    block: float
    head: float


class Heads(NamedTuple):
    """How many heads ask in the attention of a block, how many heads of keys and values they share, and their size."""

    queries: int
    keys: int
    size: int


class TensorPlan(NamedTuple):
    """How each part is split over devices, as `parallelize_module` takes it; keys are names of submodules."""

    embed: "ParallelStyle | None"
    block: "dict[str, ParallelStyle]"
    head: "dict[str, ParallelStyle]"


class ExpertPlan(NamedTuple):
    """Where a block holds its experts: the name of its `models.nn.experts.Experts`, and how many they are."""

    path: str
    experts: int


class Use(Protocol):
    """How a scenario's workload uses a model."""

    @property
    def precision(self) -> Precision:
        """The precision of matrix products."""

    @property
    def phase(self) -> Phase:
        """What the model does: it is trained, scores text or generates it."""

    @property
    def compile(self) -> bool:
        """Whether torch.compile compiles it."""

    @property
    def activation_checkpointing(self) -> Checkpointing:
        """Which activations of blocks are computed again in the backward pass; False where all are kept."""


class Family(Spec, ABC):
    """A model family and its sizes, as written under `model:`. Defining a subclass registers it under its `kind`.

    A subclass fixes `kind` with a `Literal` and builds three sorts of parts. A part maps a tensor to a tensor:
    `embed` token ids (batch, seq_len) to hidden states, each block hidden states to hidden states of the same shape,
    and `head` hidden states to logits (batch, seq_len, vocab_size). Parts import torch when they are built.

    A family that `generates` has parts that can continue a prompt: `embed(tokens, start)` with the position of the
    first token, blocks with `new_cache(length)` and `block(hidden, cache)`. If it `decodes_in_place`, they also take a
    start that is a tensor on the device, and what `static(place)` of their caches returns (`models.nn.cache`).

    `vocab_size` sets a larger vocabulary than the data's, such as that of a published model.
    """

    kind: str
    vocab_size: Annotated[int, Field(ge=2, le=2_000_000)] | None = None

    generates: ClassVar[bool] = False
    """Its blocks take a cache, so tokens can be generated one by one."""
    decodes_in_place: ClassVar[bool] = False
    """The step of one token can have tensors of fixed shapes in fixed places, as a CUDA graph needs them."""
    draws_random: ClassVar[bool] = False
    """Its models may draw random numbers in the forward pass; checkpointing then restores the generator's state."""
    chunks_loss: ClassVar[bool] = False
    """Its head works on each token alone, so the loss can be computed over one chunk of the tokens at a time."""
    auxiliary_loss: ClassVar[bool] = False
    """Where gradients are computed, its blocks give a pair: hidden states, and a number that joins the trained loss.

    The loss is then computed within the forward pass of the model, which adds these numbers up."""
    stacks: ClassVar[bool] = False
    """Several of its models can run as one under `torch.vmap`."""
    imports: ClassVar[tuple[str, ...]] = ()
    """Modules beyond torch that its parts need; the launcher imports them once, and not in every trial."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named sizes; a subclass that has some also has a field `preset`."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "kind" in cls.__annotations__:
            FAMILIES.add(str(cls.model_fields["kind"].default), cls)

    @property
    @abstractmethod
    def n_blocks(self) -> int:
        """The number of blocks between `embed` and `head`."""

    @abstractmethod
    def embed(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """Token ids (batch, seq_len) → hidden states."""

    @abstractmethod
    def block(self, seq_len: int) -> "nn.Module":
        """One block, freshly initialised: hidden states → hidden states of the same shape."""

    @abstractmethod
    def head(self, vocab_size: int) -> "nn.Module":
        """Hidden states → logits (batch, seq_len, vocab_size)."""

    def work(self, vocab_size: int, seq_len: int) -> Work | None:  # noqa: ARG002 - for overriding
        """Model FLOPs of each part (Chowdhery et al. 2022, appendix B), which balance stages and give MFU; or None."""
        return None

    def shape(self) -> Shape | None:
        """Its sizes, for `parbench predict`; None where it is not made of Transformer blocks."""
        return None

    def costs(self, vocab_size: int, seq_len: int) -> tuple[float, ...]:
        """Relative costs of embedding, each block and head: their work or, where it is not known, 1 for each block."""
        work = self.work(vocab_size, seq_len) or Work(embed=0.0, block=1.0, head=0.0)
        return (work.embed, *[work.block] * self.n_blocks, work.head)

    def examined(self, vocab_size: int, seq_len: int, *, global_batch: int = 2) -> Self:  # noqa: ARG002 - for overriding
        """The family with what only building its model shows. Raises `Unsupported`, with the field at fault."""
        return self

    def refusal(self, use: Use, device_kind: str) -> str | None:  # noqa: ARG002 - for overriding
        """Why such devices cannot run this use of the family; None where they can."""
        return None

    def changing_sizes(self, phase: Phase) -> str | None:
        """Why sizes within its steps change from one to the next; None where all are known beforehand."""
        if phase == "generate" and not self.decodes_in_place:
            return f"caches of family {self.kind} grow with every token"
        return None

    def rounding_jump(self, tokens: int) -> float:  # noqa: ARG002 - for overriding
        """How far one rounding may move the mean loss of so many tokens, in nats, where it decides between two ways."""
        return 0.0

    def expert_plan(self) -> ExpertPlan | None:
        """Which part of a block are experts that can be spread over devices; None where there are none."""
        return None

    def load(self) -> None:
        """Imports what building needs, before memory is measured: imports do not count as the model's memory."""

    def stage_refusal(self) -> str | None:
        """Why the model cannot be cut into stages; None where it can."""
        return None if self.n_blocks else "the model has no embed, blocks and head to cut stages from"

    def tensor_refusal(self, degree: int) -> str | None:  # noqa: ARG002 - for overriding
        """Why the family's tensors cannot be split over `degree` devices; None where they can."""
        return f"model family {self.kind} has no tensor-parallel plan"

    def tensor_plan(self, *, sequence_parallel: bool) -> TensorPlan:
        """How the parts are split; with `sequence_parallel`, activations between them are split along the sequence."""
        raise NotImplementedError(self.kind)

    def attention_heads(self) -> Heads | None:
        """Those of a block whose only place where positions of a sequence meet is an `Attention` of `nn.attention`.

        None where they meet elsewhere. Parts that encode positions have a method `keep_positions`, as those of `nn` do.
        """
        return None

    def context_refusal(self) -> str:
        """Why a sequence's positions cannot be cut over devices where the family names no `attention_heads`."""
        return f"parbench does not know where the positions of a sequence meet in models of family {self.kind}"


def fill_from_preset(presets: dict[str, dict[str, Any]], data: Any) -> Any:
    """`data` with the sizes of its preset where it has none of its own; validation reports unknown presets."""
    return {**presets.get(str(data.get("preset")), {}), **data} if isinstance(data, dict) else data
