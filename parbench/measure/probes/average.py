"""Many trained models into one: the average of their parameters."""

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


class Average:
    """The sum of the parameters of this rank's models; over all ranks, divided, it is the average model."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Counts a trained model in."""
        vector = parameters_to_vector(model.parameters()).cpu()
        self._sum = vector if self._sum is None else self._sum + vector
        self._count += 1

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        """Makes `model` the average of all ranks' models. Every rank calls it, each with at least one model added."""
        if self._sum is None:
            raise RuntimeError("there is no model to average")
        count = torch.tensor(float(self._count))
        if distributed.get_world_size() > 1:
            distributed.all_reduce(self._sum)
            distributed.all_reduce(count)
        device = next(model.parameters()).device
        vector_to_parameters((self._sum / count).to(device), model.parameters())
