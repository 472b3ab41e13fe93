"""A mixture of experts: a router chooses for each token the few MLPs that it goes through."""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from parbench.models.nn.attention import Attention, AttentionCache
from parbench.models.nn.block import PreNormBlock
from parbench.models.nn.routing import Routes, fill_slots, measure_imbalance, sort_by_expert


class Router(nn.Module):
    """Chooses `top_k` of `experts` for each token, by a softmax over all of them.

    Their answers are weighted with these probabilities: of one expert with its own, so that the router learns (Fedus et
    al. 2022, "Switch Transformers"), of several with their shares of the sum (Lepikhin et al. 2020, "GShard").
    """

    def __init__(self, d_model: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(experts, d_model))
        _fill_as_linear(self.weight, inputs=d_model)

    def forward(self, hidden: Tensor) -> Routes:
        """(batch, seq_len, d_model) → where its tokens go. In fp32 in every precision, as in Switch Transformers."""
        with torch.autocast(hidden.device.type, enabled=False):
            probabilities = functional.linear(hidden.float(), self.weight.float()).softmax(dim=-1)
        likeliest, chosen = probabilities.topk(self.top_k, dim=-1)
        gates = likeliest if self.top_k == 1 else likeliest / likeliest.sum(dim=-1, keepdim=True)
        return Routes(probabilities, chosen, gates)


class Runs(Protocol):
    """Experts, wherever they are: rows of tokens in, their answers out."""

    def run_slots(self, slots: Tensor) -> Tensor:
        """(experts, slots, d_model), as many rows for each expert → the same shape."""

    def run_rows(self, rows: Tensor, counts: Tensor) -> Tensor:
        """(rows, d_model), the first `counts[0]` rows for the first expert, and so on → the same shape."""


class Experts(nn.Module):
    """`count` MLPs of `width` channels with GELU. Each parameter has all of them, one after another."""

    def __init__(self, count: int, d_model: int, width: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(count, d_model, width))
        self.up_bias = nn.Parameter(torch.empty(count, width))
        self.down = nn.Parameter(torch.empty(count, width, d_model))
        self.down_bias = nn.Parameter(torch.empty(count, d_model))
        for parameter in (self.up, self.up_bias):
            _fill_as_linear(parameter, inputs=d_model)
        for parameter in (self.down, self.down_bias):
            _fill_as_linear(parameter, inputs=width)

    def run_slots(self, slots: Tensor) -> Tensor:
        """As `Runs`; its shapes do not depend on the data, so the host need not wait for any of it."""
        inner = torch.baddbmm(self.up_bias.unsqueeze(1), slots, self.up)
        return torch.baddbmm(self.down_bias.unsqueeze(1), functional.gelu(inner, approximate="tanh"), self.down)

    def run_rows(self, rows: Tensor, counts: Tensor) -> Tensor:
        """As `Runs`; the host has to know the counts."""
        # One view of all: to index a parameter by expert, autograd would fill a gradient of its full size each time.
        weights = (parameter.unbind() for parameter in (self.up, self.up_bias, self.down, self.down_bias))
        answers = [
            torch.addmm(down_bias, functional.gelu(torch.addmm(up_bias, part, up), approximate="tanh"), down)
            for part, up, up_bias, down, down_bias in zip(rows.split(counts.tolist()), *weights, strict=True)
        ]
        return torch.cat(answers)

    @torch.no_grad()
    def keep_part(self, part: int, parts: int) -> None:
        """Keeps the experts of one of `parts` equal parts."""
        for name, parameter in list(self.named_parameters()):
            setattr(self, name, nn.Parameter(parameter.chunk(parts)[part].clone()))


class Mixed(NamedTuple):
    """The answers (batch, seq_len, d_model), where tokens went, and which of their choices found room; None: all."""

    hidden: Tensor
    routes: Routes
    is_kept: Tensor | None


class ExpertLayer(nn.Module):
    """Router and experts; `shared`, if there is one, answers every token besides (Dai et al. 2024, "DeepSeekMoE").

    With `capacity_factor`, an expert takes at most `top_k` · seq_len ÷ experts · `capacity_factor` tokens of a
    sequence, rounded up, and what is beyond that is dropped: earlier tokens come first. That is so in training; nothing
    is dropped otherwise.
    """

    experts: Runs

    def __init__(
        self, router: Router, experts: Experts, shared: nn.Module | None, capacity_factor: float | None
    ) -> None:
        super().__init__()
        self.router = router
        self.experts = experts
        self.shared = shared
        self.capacity_factor = capacity_factor

    def forward(self, hidden: Tensor) -> Mixed:
        """Works on each sequence alone."""
        routes = self.router(hidden)
        tokens = hidden.flatten(0, 1)
        if torch.is_autocast_enabled(hidden.device.type):
            # The experts would cast every copy of a token.
            tokens = tokens.to(torch.get_autocast_dtype(hidden.device.type))
        if self.training and self.capacity_factor is not None:
            answers, is_kept = self._run_slots(tokens, routes, self.capacity_factor)
        else:
            answers, is_kept = self._run_rows(tokens, routes), None
        mixed = (answers * routes.gates.flatten(0, 1).unsqueeze(-1)).sum(dim=1).view_as(hidden)
        return Mixed(mixed if self.shared is None else mixed + self.shared(hidden), routes, is_kept)

    def _run_rows(self, tokens: Tensor, routes: Routes) -> Tensor:
        """The answers (tokens, top_k, d_model), of whichever experts."""
        places = sort_by_expert(routes)
        answers = self.experts.run_rows(tokens.index_select(0, places.tokens), places.counts)
        ordered: Tensor = answers.index_select(0, places.answers).unflatten(0, (len(tokens), -1))
        return ordered

    def _run_slots(self, tokens: Tensor, routes: Routes, factor: float) -> tuple[Tensor, Tensor]:
        """The answers (tokens, top_k, d_model), zero where there was no room, and where there was (tokens, top_k)."""
        _, length, top_k = routes.chosen.shape
        count = routes.probabilities.shape[-1]
        places = fill_slots(routes, min(length, math.ceil(factor * top_k * length / count)))
        slots = tokens.index_select(0, places.tokens).unflatten(0, (count, -1))
        answers = self.experts.run_slots(slots).flatten(0, 1).index_select(0, places.answers)
        is_kept = places.is_kept.view(len(tokens), top_k)
        return answers.unflatten(0, (len(tokens), top_k)) * is_kept.unsqueeze(-1), is_kept


class ExpertBlock(PreNormBlock):
    """A block whose MLP is a mixture of experts.

    Where gradients are computed, and without a cache, it also gives what its router adds to the loss: its imbalance
    times `balance`.
    """

    def __init__(
        self,
        attention_norm: nn.Module,
        attention: Attention,
        mlp_norm: nn.Module,
        mlp: ExpertLayer,
        balance: float,
    ) -> None:
        super().__init__(attention_norm, attention, mlp_norm, mlp)
        self.balance = balance

    def forward(  # type: ignore[override]
        self, hidden: Tensor, cache: AttentionCache | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(batch, seq_len, d_model) → the same shape and, where it learns, a number."""
        hidden = hidden + self.attention(self.attention_norm(hidden), cache)
        mixed: Mixed = self.mlp(self.mlp_norm(hidden))
        hidden = hidden + mixed.hidden
        if cache is not None or not torch.is_grad_enabled():
            return hidden
        return hidden, self.balance * measure_imbalance(mixed.routes)


def _fill_as_linear(parameter: nn.Parameter, *, inputs: int) -> None:
    """Initial values as those of `nn.Linear` with so many inputs."""
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(parameter, -bound, bound)
