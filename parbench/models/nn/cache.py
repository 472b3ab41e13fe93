"""Caches of what blocks have computed for earlier tokens, so that a new token costs one position."""

from torch import Tensor


class KeyValueCache:
    """The keys and values of up to `length` positions of one attention block, (batch, heads, length, head size)."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.filled = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values of the next positions; returns all so far. The first call allocates for `length`."""
        if self._keys is None or self._values is None:
            batch, heads, _, size = keys.shape
            self._keys = keys.new_empty(batch, heads, self.length, size)
            self._values = values.new_empty(batch, heads, self.length, size)
        end = self.filled + keys.shape[2]
        self._keys[:, :, self.filled : end] = keys
        self._values[:, :, self.filled : end] = values
        self.filled = end
        return self._keys[:, :, :end], self._values[:, :, :end]


class CarriedState:
    """The hidden and cell state of one recurrent block, each (1, batch, width); None before the first token."""

    def __init__(self) -> None:
        self.state: tuple[Tensor, Tensor] | None = None
