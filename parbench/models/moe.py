"""GPT-style Transformer language model whose MLPs are mixtures of experts."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from parbench.base_types import Phase
from parbench.models.base import ExpertPlan, Heads, Work
from parbench.models.shape import Shape
from parbench.models.transformer import GPT2_VOCABULARY, Transformer

if TYPE_CHECKING:
    from torch import nn


REROUTED = 2.0
"""How far the loss of a token that goes to another expert may move, in nats, with what follows of that in later steps:
seen with Adam and 1024 tokens were 0.2 at once, and up to 1.8 some steps later."""


class MixtureOfExperts(Transformer):
    """A `transformer` whose routers send each token through `top_k` of `experts` MLPs a block (Shazeer et al. 2017).

    An expert is `expert_width` wide (default: four times the model); with `shared_expert`, one more answers every token
    (Dai et al. 2024, "DeepSeekMoE"). In training, `capacity_factor` limits the tokens that an expert takes of each
    sequence to so many times its even share, and what is beyond that is dropped (Lepikhin et al. 2020, "GShard", with
    sequences as groups); null drops nothing. The routers' imbalance within each sequence, times `balance`, joins the
    loss that is trained (DeepSeek-AI 2024, "DeepSeek-V3", section 2.1.2); losses are reported without it. Both are of
    sequences and not of batches, so that they are the same in whatever parts a batch is computed.
    """

    decodes_in_place = False
    auxiliary_loss = True
    stacks = False
    imports = ("parbench.models.nn.embedding", "parbench.models.nn.experts")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "moe-laptop": {"layers": 4, "d_model": 128, "heads": 4, "experts": 8},
        "moe-desktop": {"layers": 6, "d_model": 384, "heads": 6, "experts": 8},
        "gpt2-124m-8-experts": {
            "layers": 12,
            "d_model": 768,
            "heads": 12,
            "experts": 8,
            "vocab_size": GPT2_VOCABULARY,
        },
    }

    kind: Literal["moe"] = "moe"  # type: ignore[assignment]
    preset: Literal["moe-laptop", "moe-desktop", "gpt2-124m-8-experts"] | None = None  # type: ignore[assignment]
    experts: Annotated[int, Field(ge=1, le=10_000)] = 8
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 2
    expert_width: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    shared_expert: bool = False
    capacity_factor: Annotated[float, Field(gt=0, le=10_000)] | None = None
    balance: Annotated[float, Field(ge=0, le=1_000)] = 0.01

    @model_validator(mode="after")
    def _enough_experts_to_choose_from(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than the {self.experts} experts that there are")
        return self

    @property
    def _expert_width(self) -> int:
        return self.expert_width or 4 * self.d_model

    def block(self, seq_len: int) -> "nn.Module":  # noqa: ARG002 - the embedding encodes positions
        """(batch, seq_len, d_model) → the same shape and, where it learns, its part of the loss."""
        from torch import nn

        from parbench.models.nn.attention import Attention
        from parbench.models.nn.experts import ExpertBlock, ExpertLayer, Experts, Router

        width, inner = self.d_model, self._expert_width
        attention = Attention(width, self.heads, self.heads, bias=True)
        router, experts = Router(width, self.experts, self.top_k), Experts(self.experts, width, inner)
        shared = None
        if self.shared_expert:
            shared = nn.Sequential(nn.Linear(width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, width))
        mlp = ExpertLayer(router, experts, shared, self.capacity_factor)
        return ExpertBlock(nn.LayerNorm(width), attention, nn.LayerNorm(width), mlp, self.balance)

    def work(self, vocab_size: int, seq_len: int) -> Work:
        """Of the experts only those that a token goes through count, whether one then has room for it or not."""
        width = self.d_model
        attention, router = 8.0 * width**2 + 4.0 * seq_len * width, 2.0 * width * self.experts
        experts = 4.0 * width * self._expert_width * (self.top_k + self.shared_expert)
        return Work(embed=0.0, block=attention + router + experts, head=2.0 * width * vocab_size)

    def changing_sizes(self, phase: Phase) -> str | None:
        """Where nothing is dropped, an expert takes as many tokens as are sent to it."""
        if phase == "train" and self.capacity_factor is not None:
            return None
        hint = "; set capacity_factor" if phase == "train" else ""
        return f"where nothing is dropped, an expert's tokens are more or fewer in every step{hint}"

    def rounding_jump(self, tokens: int) -> float:
        """Where two experts are almost equally likely, rounding decides which of them a token goes to."""
        return REROUTED / tokens if self.top_k < self.experts else 0.0

    def expert_plan(self) -> ExpertPlan:
        """The experts of a block; its router and its shared expert are everywhere."""
        return ExpertPlan("mlp.experts", self.experts)

    def shape(self) -> Shape | None:
        """Of a Transformer whose MLPs are experts the planner knows nothing yet."""
        return None

    def attention_heads(self) -> Heads | None:
        """Routers balance over all positions of a sequence, so positions meet there as well."""
        return None

    def context_refusal(self) -> str:
        """An expert's room, and the loss of its balance, are those of a whole sequence."""
        return "routers of family moe balance over whole sequences, which cannot be cut over devices"

    def stage_refusal(self) -> str:
        """Stages hand hidden states on, and nothing else."""
        return "blocks of family moe add to the loss, and stages of a pipeline hand on hidden states alone"

    def tensor_refusal(self, degree: int) -> str:  # noqa: ARG002 - for no degree
        """What is split is the experts, and not each of them."""
        return "model family moe has no tensor-parallel plan: expert_parallel spreads its experts over devices"
