"""Where routers send the tokens of a step, counted after the timed steps."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from parbench.models.nn.experts import ExpertLayer, Mixed
from parbench.records.routing import RoutingRecord


def count_routing(model: nn.Module, step: Callable[[], None], *, compiled: bool) -> RoutingRecord | None:
    """Where this rank's tokens go in a step; None for models without experts, whose step is not taken.

    A layer that computes its activations again counts its tokens again. Compiled code would not call what counts.
    """
    layers = [module for module in model.modules() if isinstance(module, ExpertLayer)]
    if not layers:
        return None
    counts = [_Counts(layer) for layer in layers]
    with ExitStack() as stack:
        if compiled:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for each in counts:
            handle = each.layer.register_forward_hook(each.add)
            stack.callback(handle.remove)
        step()
    return RoutingRecord(
        choices=tuple(tuple(each.choices.tolist()) for each in counts),
        dropped=sum(int(each.dropped) for each in counts),
    )


class _Counts:
    """Of one layer, on its device: nothing is read back as long as the step runs."""

    def __init__(self, layer: ExpertLayer) -> None:
        self.layer = layer
        weight = layer.router.weight
        self.choices = torch.zeros(weight.shape[0], dtype=torch.int64, device=weight.device)
        self.dropped = torch.zeros((), dtype=torch.int64, device=weight.device)

    def add(self, _: nn.Module, __: Any, mixed: Mixed) -> None:
        """Counts what the layer has done with a batch."""
        chosen: Tensor = mixed.routes.chosen.detach().flatten()
        self.choices.scatter_add_(0, chosen, torch.ones_like(chosen))
        if mixed.is_kept is not None:
            self.dropped += (~mixed.is_kept).sum()
