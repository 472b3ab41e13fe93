"""One model out of many: the average of their parameters."""

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


class Average:
    """Sums the parameters of this rank's models; all ranks' sums together give the average model."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Adds a trained model."""
        vector = parameters_to_vector(model.parameters()).cpu()
        self._sum = vector if self._sum is None else self._sum + vector
        self._count += 1

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        """Loads the average of all ranks' models into `model`. Every rank calls it, after it has added a model."""
        if self._sum is None:
            raise RuntimeError("no model has been added that could be averaged")
        count = torch.tensor(float(self._count))
        if distributed.get_world_size() > 1:
            distributed.all_reduce(self._sum)
            distributed.all_reduce(count)
        device = next(model.parameters()).device
        vector_to_parameters((self._sum / count).to(device), model.parameters())
