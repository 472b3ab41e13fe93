"""Experts that are spread over the ranks of a group: tokens go to them and their answers come back, all to all."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from parbench.models.nn.experts import Experts

Counts = list[int] | None
"""How many rows each rank sends or receives; None: all as many."""


class SpreadExperts(nn.Module):
    """The experts of one layer, of which each rank of `group` holds an equal part; the first rank holds the first ones.

    Every rank hands in its own tokens. Forward and backward passes are collectives.
    """

    def __init__(self, experts: Experts, group: ProcessGroup) -> None:
        super().__init__()
        experts.keep_part(group.rank(), group.size())
        self.own = experts
        self.group = group

    def run_slots(self, slots: Tensor) -> Tensor:
        """(experts, slots, d_model), as many rows for each expert → the same shape; the host waits for nothing."""
        ranks = self.group.size()
        received = exchange(slots, self.group).unflatten(0, (ranks, -1))
        answers = self.own.run_slots(received.transpose(0, 1).flatten(1, 2))
        return exchange(answers.unflatten(1, (ranks, -1)).transpose(0, 1).flatten(0, 1), self.group)

    def run_rows(self, rows: Tensor, counts: Tensor) -> Tensor:
        """(rows, d_model), the first `counts[0]` rows for the first expert, and so on → the same shape."""
        sent_counts = counts.view(self.group.size(), -1)
        received_counts = torch.empty_like(sent_counts)
        distributed.all_to_all_single(received_counts, sent_counts, group=self.group)
        sent, received = torch.stack([sent_counts.sum(dim=1), received_counts.sum(dim=1)]).tolist()
        arrived = exchange(rows, self.group, sent, received)
        # Rows arrive rank by rank, each rank's in the order of experts; experts take them expert by expert.
        experts = torch.arange(received_counts.shape[1], device=rows.device).repeat(len(received))
        order = experts.repeat_interleave(received_counts.flatten(), output_size=len(arrived)).argsort(stable=True)
        answers = self.own.run_rows(arrived.index_select(0, order), received_counts.sum(dim=0))
        return exchange(torch.empty_like(answers).index_copy(0, order, answers), self.group, received, sent)


def exchange(rows: Tensor, group: ProcessGroup, sent: Counts = None, received: Counts = None) -> Tensor:
    """Hands each rank its part of the rows, and takes its own part of every rank's, in the order of ranks."""
    exchanged: Tensor = _Exchange.apply(rows, group, sent, received)  # type: ignore[no-untyped-call]
    return exchanged


class _Exchange(torch.autograd.Function):
    """Going backward, gradients go the way that the rows have come."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: ProcessGroup, sent: Counts, received: Counts) -> Tensor:
        ctx.group, ctx.sent, ctx.received = group, sent, received
        return _all_to_all(rows, group, sent, received)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> Any:
        return _all_to_all(gradients, ctx.group, ctx.received, ctx.sent), None, None, None


def _all_to_all(rows: Tensor, group: ProcessGroup, sent: Counts, received: Counts) -> Tensor:
    arrived = rows.new_empty(len(rows) if received is None else sum(received), *rows.shape[1:])
    distributed.all_to_all_single(arrived, rows.contiguous(), received, sent, group=group)
    return arrived


class ExpertGradients:
    """Averages the gradients of spread experts over all `ranks`, as soon as the backward pass has computed each.

    An expert's gradient has the tokens of its whole group of ranks in it already, as the sum of the ranks' mean losses;
    what is left is to add those of its `replicas` in other groups.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], replicas: ProcessGroup, ranks: int) -> None:
        self.exchanging = True
        self._replicas = replicas
        self._ranks = ranks
        self._pending: list[Any] = []
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._average)

    def finish(self) -> None:
        """Waits until all replicas have the same gradients."""
        for work in self._pending:
            work.wait()
        self._pending.clear()

    def _average(self, parameter: Tensor) -> None:
        if not self.exchanging or parameter.grad is None:
            return
        parameter.grad.div_(self._ranks)
        if self._replicas.size() > 1:
            self._pending.append(distributed.all_reduce(parameter.grad, group=self._replicas, async_op=True))
