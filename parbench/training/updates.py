"""From gradients to new parameters: the optimizer and, in fp16, the scale that keeps small gradients from underflow."""

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from parbench.training.shares import Shares


class Updates:
    """The steps of an optimizer, with dynamic loss scaling on the device `scaled_on` (Micikevicius et al. 2018).

    The optimizer steps `shares` where parameters are split over ranks. The ranks of `group` hold different parts of one
    model: an overflow in one of them skips the step in all.
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
            # The scaler makes its scale at first use. In a pipeline all ranks need it, and only the last uses it.
            self._scaler.scale(torch.zeros((), device=scaled_on))
        self._group = group if group is not None and group.size() > 1 else None

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss, multiplied by the loss scale: the backward pass starts from it."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def apply(self) -> None:
        """Takes one optimizer step, and clears the gradients."""
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
        """Tells all ranks of an overflow in any of them, through the flags that the scaler reads."""
        for overflow in scaler._found_inf_per_device(self.optimizer).values():
            distributed.all_reduce(overflow, distributed.ReduceOp.MAX, group=group)
