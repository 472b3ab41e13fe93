"""Where tokens go among experts: by sorting, with room for all of them or for as many as an expert may take."""

from typing import NamedTuple

import torch
from torch import Tensor


class Routes(NamedTuple):
    """Where a router sends tokens.

    `probabilities` (batch, seq_len, experts) of all experts; of the experts that are `chosen`, whose numbers are
    (batch, seq_len, top_k), the weights of their answers, `gates`.
    """

    probabilities: Tensor
    chosen: Tensor
    gates: Tensor


class Rows(NamedTuple):
    """The rows that experts take, all of the first expert before those of the second.

    `tokens` (rows) are the numbers of the tokens in them, `counts` (experts) how many each expert takes; `answers`
    (tokens · top_k) are the rows with the answers to each token's choices.
    """

    tokens: Tensor
    answers: Tensor
    counts: Tensor


class Slots(NamedTuple):
    """The slots of experts, as many for each, those of the first expert before those of the second.

    `tokens` (slots) are the numbers of the tokens in them; a slot that stays empty has any token, and nobody asks for
    its answer. `answers` (tokens · top_k) are the slots with the answers to each token's choices; where a choice is not
    `is_kept`, any.
    """

    tokens: Tensor
    answers: Tensor
    is_kept: Tensor


def measure_imbalance(routes: Routes) -> Tensor:
    """How unevenly a sequence's tokens go to the experts: E · Σ f·P over the E experts, the mean over sequences.

    f is an expert's share of the choices in a sequence, P its mean probability there; it is 1 where all are alike. Of
    whole batches it is the loss of Fedus et al. 2022, "Switch Transformers" (equation 4); of each sequence, that of
    DeepSeek-AI 2024, "DeepSeek-V3" (equations 17 to 20). So it is the same in whatever parts a batch is computed.
    """
    batch, _, experts = routes.probabilities.shape
    choices = routes.chosen.flatten(1)
    counts = routes.probabilities.new_zeros(batch, experts)
    counts.scatter_add_(1, choices, torch.ones_like(choices, dtype=counts.dtype))
    shares = counts / choices.shape[1]
    return experts * (shares * routes.probabilities.mean(dim=1)).sum(dim=-1).mean()


def sort_by_expert(routes: Routes) -> Rows:
    """Room for every choice: the number of an expert's rows depends on the data."""
    choices = routes.chosen.flatten()
    order = choices.argsort(stable=True)
    rows = torch.arange(len(order), device=order.device)
    answers = torch.empty_like(order).scatter_(0, order, rows)
    return Rows(order // routes.chosen.shape[-1], answers, _count(choices, routes.probabilities.shape[-1]))


def fill_slots(routes: Routes, capacity: int) -> Slots:
    """Room for `capacity` tokens of each sequence with each expert: groups as in GShard (Lepikhin et al. 2020).

    A sequence's earlier tokens come first, so that no token depends on later ones. All shapes are known beforehand.
    """
    batch, length, top_k = routes.chosen.shape
    device = routes.chosen.device
    groups = routes.probabilities.shape[-1] * batch
    sequences = torch.arange(batch, device=device).view(batch, 1, 1)
    choices = (routes.chosen * batch + sequences).flatten()
    order = choices.argsort(stable=True)
    counts = _count(choices, groups)
    sorted_choices = choices.gather(0, order)
    first = (counts.cumsum(0) - counts).gather(0, sorted_choices)
    place = torch.arange(len(order), device=device) - first
    has_room = place < capacity
    # One slot more than there are, for all that find no room.
    slots = torch.where(has_room, sorted_choices * capacity + place, groups * capacity)
    # What stands in for nothing differs from place to place: on a GPU, gradients that are added to one would queue up.
    tokens = torch.arange(groups * capacity + 1, device=device) % (batch * length)
    tokens.scatter_(0, slots, order // top_k)
    elsewhere = order % (groups * capacity)
    answers = torch.empty_like(order).scatter_(0, order, torch.where(has_room, slots, elsewhere))
    is_kept = torch.empty_like(has_room).scatter_(0, order, has_room)
    return Slots(tokens[:-1], answers, is_kept)


def _count(values: Tensor, kinds: int) -> Tensor:
    """How often each number below `kinds` is among the values. `bincount` would make a GPU's host wait."""
    return values.new_zeros(kinds).scatter_add_(0, values, torch.ones_like(values))
