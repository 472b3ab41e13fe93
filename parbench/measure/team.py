"""Ranks that have to agree: on the slowest time, and on a common start."""

import torch
from torch import distributed
from torch.distributed import ProcessGroup


class Team:
    """The ranks of a process group; a rank on its own (no group) agrees with itself."""

    def __init__(self, group: ProcessGroup | None, device: torch.device) -> None:
        self._group = group
        self._device = device

    def slowest(self, seconds: float) -> float:
        """The largest of all ranks' values, the same in every rank."""
        if self._group is None or self._group.size() == 1:
            return seconds
        value = torch.tensor(seconds, dtype=torch.float64, device=self._device)
        distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self._group)
        return float(value.item())

    def meet(self) -> None:
        """Returns once every rank has come this far."""
        self.slowest(0.0)
