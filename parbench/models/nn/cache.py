"""Caches of what blocks have computed for earlier tokens, so that a new token costs one position.

Those that take in a prompt grow with every token. Their static forms have all their room at once, and find the position
of the next token on the device: every step has the same shapes in the same places, so a CUDA graph can replay it.
"""

import torch
from torch import Tensor

Start = int | Tensor
"""The position of the first token. As a tensor (1,) on the device, it is that of a single new token."""

State = tuple[Tensor, Tensor]
"""The hidden and cell state of one recurrent block, each (1, batch, width)."""


def take_rows(table: Tensor, start: Start, length: int) -> Tensor:
    """The rows of a table for `length` positions from `start` on."""
    return table[start : start + length] if isinstance(start, int) else table[start]


class Place:
    """Where the next token goes in static caches of `length` positions.

    `start` (1,) is its position; `visible` (1, length) tells the positions that it attends to, which are its own and
    those before.
    """

    def __init__(self, length: int, device: torch.device) -> None:
        self.length = length
        self.start = torch.zeros(1, dtype=torch.int64, device=device)
        self.visible = torch.zeros(1, length, dtype=torch.bool, device=device)

    def move_to(self, position: int) -> None:
        """The next token goes to `position`."""
        self.start.fill_(position)
        self.visible.fill_(False)
        self.visible[:, : position + 1] = True

    def advance(self) -> None:
        """The next token goes one position further."""
        self.start.add_(1)
        self.visible.index_fill_(1, self.start, True)


class KeyValueCache:
    """The keys and values of up to `length` positions of one attention block, (batch, heads, length, head size)."""

    visible: Tensor | None = None
    """None: what a block attends to is all that `extend` returns, as far as it is not ahead."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.start = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    @property
    def filled(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions so far."""
        if self._keys is None or self._values is None:
            raise RuntimeError("no token has passed through this cache yet")
        return self._keys[:, :, : self.start], self._values[:, :, : self.start]

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values of the next positions; returns all so far. The first call allocates for `length`."""
        if self._keys is None or self._values is None:
            batch, heads, _, size = keys.shape
            self._keys = keys.new_empty(batch, heads, self.length, size)
            self._values = values.new_empty(batch, heads, self.length, size)
        end = self.start + keys.shape[2]
        self._keys[:, :, self.start : end] = keys
        self._values[:, :, self.start : end] = values
        self.start = end
        return self.filled

    def static(self, place: Place) -> "StaticKeyValues":
        """A static cache for keys and values like those in this one."""
        return StaticKeyValues(self, place)


class StaticKeyValues:
    """The keys and values of all positions of `place`, whether they are filled yet or not."""

    def __init__(self, like: KeyValueCache, place: Place) -> None:
        # Zeros: what is not visible still counts, times zero, and must be a number.
        self._keys, self._values = (
            part.new_zeros(*part.shape[:2], place.length, part.shape[3]) for part in like.filled
        )
        self.start = place.start
        self.visible = place.visible

    def take(self, prompt: KeyValueCache) -> None:
        """Begins anew with the positions of a prompt."""
        keys, values = prompt.filled
        self._keys[:, :, : prompt.start] = keys
        self._values[:, :, : prompt.start] = values

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Puts keys and values of one position into their place; returns those of all positions."""
        return self._keys.index_copy_(2, self.start, keys), self._values.index_copy_(2, self.start, values)


class CarriedState:
    """The state of one recurrent block; None before the first token."""

    def __init__(self) -> None:
        self.state: State | None = None

    @property
    def filled(self) -> State:
        """The state after the tokens so far."""
        if self.state is None:
            raise RuntimeError("no token has passed through this cache yet")
        return self.state

    def static(self, place: Place) -> "StaticState":  # noqa: ARG002 - the state has the same size at any position
        """A static cache for a state like this one."""
        return StaticState(self)


class StaticState:
    """The state of one recurrent block, always in the same place: a new one overwrites the one before."""

    def __init__(self, like: CarriedState) -> None:
        hidden, cell = like.filled
        self._state = torch.empty_like(hidden), torch.empty_like(cell)

    @property
    def state(self) -> State:
        """The state after the tokens so far."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        for own, new in zip(self._state, state, strict=True):
            own.copy_(new)

    def take(self, prompt: CarriedState) -> None:
        """Begins anew with the state after a prompt."""
        self.state = prompt.filled
