"""What a rank has to hold of a model that it trains: parameters, gradients and optimizer state, by arithmetic alone."""

import math
from collections.abc import Iterable
from typing import NamedTuple, Self

from parbench.records.memory_account import HeldRecord
from parbench.scenario.specs import OptimizerSpec


class Outline(NamedTuple):
    """A parameter without its values. Its name is that in the whole model: `embed.…`, `blocks.3.…` or `head.…`."""

    name: str
    shape: tuple[int, ...]
    element_bytes: int = 4
    is_trained: bool = True

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    def cut(self, dimension: int, parts: int) -> Self:
        """The first of `parts` parts that it is cut into along a dimension: the others are as large, or smaller."""
        sizes = list(self.shape)
        sizes[dimension] = -(-sizes[dimension] // parts)
        return self._replace(shape=tuple(sizes))


class Piece(NamedTuple):
    """What a rank holds of one parameter, in elements: of itself, of its gradient, and of what its optimizer steps.

    `stepped` is None where another rank's optimizer steps it.
    """

    of: Outline
    parameter: int
    gradient: int
    stepped: int | None

    @classmethod
    def whole(cls, of: Outline, models: int = 1) -> Self:
        """All of it, in each of `models` stacked models."""
        elements = of.elements * models
        return cls(of, parameter=elements, gradient=elements, stepped=elements)


def count_held(pieces: Iterable[Piece], optimizer: OptimizerSpec, *, trains: bool) -> HeldRecord:
    """The bytes of these pieces. Without training, and of parameters that stay as they are, only those of parameters.

    The optimizer's state is as torch keeps it: SGD has a momentum if it uses one; Adam has two moments of each
    parameter, and counts the steps of each in four bytes.
    """
    parameters = gradients = state = 0
    moments, counter_bytes = (int(optimizer.momentum > 0), 0) if optimizer.name == "sgd" else (2, 4)
    for piece in pieces:
        parameters += piece.parameter * piece.of.element_bytes
        if trains and piece.of.is_trained:
            gradients += piece.gradient * piece.of.element_bytes
            if piece.stepped is not None:
                state += moments * piece.stepped * piece.of.element_bytes + counter_bytes
    return HeldRecord(parameters=parameters, gradients=gradients, optimizer_state=state)
