"""Stand-ins for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, stand_in: Any) -> Iterator[None]:
    """The module or class `owner` has `stand_in` under this name while the block runs."""
    own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def wrapped(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """As `replaced`, with what `wrap` makes of the attribute that is there."""
    with replaced(owner, name, wrap(getattr(owner, name))):
        yield
