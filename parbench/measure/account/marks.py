"""Names for parts of a step in the profiler's events, while a few steps are watched and at no other time."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import distributed
from torch.profiler import record_function

from parbench.strategies.base import StepPart

PREFIX = "parbench::"

STEP, BACKWARD, WAIT = "step", "backward", "wait"


@contextmanager
def marked(parts: Iterable[StepPart]) -> Iterator[None]:
    """Has the profiler record each call of the methods of `parts`, of every backward pass, and every wait for others.

    Waiting for a message that Python asked for is no operator: without a mark it would look like idle code.
    """
    every = [*parts, StepPart(torch.autograd, "backward", BACKWARD), StepPart(distributed.Work, "wait", WAIT)]
    with ExitStack() as stack:
        for part in every:
            stack.enter_context(_marked(part))
        yield


@contextmanager
def _marked(part: StepPart) -> Iterator[None]:
    owner, method = part.owner, part.method
    original, is_own = getattr(owner, method), method in vars(owner)

    @wraps(original)
    def recorded(*arguments: Any, **named: Any) -> Any:
        with record_function(PREFIX + part.name):
            return original(*arguments, **named)

    setattr(owner, method, recorded)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, method, original)
        else:
            delattr(owner, method)
