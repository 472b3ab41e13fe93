"""Parameters that lie over several ranks, as the plain tensors that a rank has of them: what optimizers step."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor


class Shares:
    """This rank's share of every parameter, in the same memory; `parameters` has plain ones as they are.

    Optimizers here work element by element, so that the update of a share is the share of the update. Over plain
    tensors torch fuses the step of every optimizer. Of parameters that are split (`DTensor`) it fuses Adam's alone,
    apart from that of whole ones, and finds out anew in every step how they lie.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters: list[nn.Parameter] = []
        self._split: list[tuple[DTensor, nn.Parameter]] = []
        for parameter in parameters:
            if isinstance(parameter, DTensor):
                with torch.no_grad():
                    share = nn.Parameter(parameter.to_local(), requires_grad=parameter.requires_grad)
                self._split.append((parameter, share))
                self.parameters.append(share)
            else:
                self.parameters.append(parameter)

    def take_gradients(self) -> None:
        """Moves gradients from split parameters to this rank's shares; every rank at the same time."""
        with torch.no_grad():
            for parameter, share in self._split:
                gradient = parameter.grad
                if isinstance(gradient, DTensor):
                    if gradient.placements != parameter.placements:
                        # Of a parameter that every rank has whole, each may have a summand of the gradient.
                        gradient = gradient.redistribute(placements=parameter.placements)
                    share.grad = gradient.to_local()
                    parameter.grad = None
