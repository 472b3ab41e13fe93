"""From a loss to new parameters: the optimizer, and in fp16 the scale that keeps small gradients from vanishing."""

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from parbench.training.shares import Shares


class Updates:
    """An optimizer's steps, with dynamic loss scaling where asked for (Micikevicius et al. 2018).

    `shares` are what it steps where parameters are split over ranks. With `group`, whose ranks hold different parts of
    one model, an overflow in one rank skips the step in all.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        shares: Shares | None = None,
        scaled_on: torch.device | None,
        group: ProcessGroup | None,
    ) -> None:
        self.optimizer = optimizer
        self._shares = shares
        self._scaler = torch.amp.GradScaler(scaled_on.type) if scaled_on else None
        if self._scaler is not None:
            # The scale comes to be at its first use, and only the rank with the loss uses it.
            self._scaler.scale(torch.zeros((), device=scaled_on))
        self._group = group if group is not None and group.size() > 1 else None

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to start the backward pass from."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def apply(self) -> None:
        """One step of the optimizer on the gradients there are; then there are none."""
        if self._shares is not None:
            self._shares.take_gradients()
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.unscale_(self.optimizer)
            if self._group is not None:
                self._share_overflow(self._scaler, self._group)
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _share_overflow(self, scaler: torch.amp.GradScaler, group: ProcessGroup) -> None:
        for overflow in scaler._found_inf_per_device(self.optimizer).values():
            distributed.all_reduce(overflow, distributed.ReduceOp.MAX, group=group)
