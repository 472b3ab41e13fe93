"""This rank's shares of parameters that are split over ranks, as plain tensors that an optimizer can step."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor


class Shares:
    """This rank's share of every parameter, in the parameter's own memory; whole parameters are taken as they are.

    All optimizers here work element by element, so the update of a share is the share of the update. On plain tensors
    torch fuses the step of every optimizer. On split parameters (`DTensor`) it fuses Adam's only, in a kernel apart
    from that of whole parameters, and works out their placements anew in every step.
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
        """Moves gradients from split parameters to this rank's shares. A collective: all ranks call it together."""
        with torch.no_grad():
            for parameter, share in self._split:
                gradient = parameter.grad
                if isinstance(gradient, DTensor):
                    if gradient.placements != parameter.placements:
                        # Where every rank holds the whole parameter, each may hold one summand of its gradient.
                        gradient = gradient.redistribute(placements=parameter.placements)
                    share.grad = gradient.to_local()
                    parameter.grad = None
