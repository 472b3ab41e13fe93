"""Ctrl-C, SIGTERM and SIGHUP end a command in order; a second one ends it at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(BaseException):
    """A signal asked parbench to end; `advice` says how to go on. No `Exception`: nothing may take it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.advice = ""

    def __str__(self) -> str:
        return f"Interrupted by {signal.Signals(self.exit_code - 128).name}{self.advice}"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """The first signal raises `Interrupted`; what this process started ends by itself after the second.

    A signal that is ignored stays so: that is how `nohup` and background jobs are told to go on.
    """
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]

    def first(number: int, _: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, _leave)
        if _put_off.active:
            _put_off.number = number
        else:
            raise Interrupted(number)

    before = {number: signal.signal(number, first) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts the first signal off until the block has ended: something is written in it that must be whole."""
    _put_off.active, _put_off.number = True, None
    try:
        yield
    finally:
        _put_off.active = False
    if _put_off.number is not None:
        raise Interrupted(_put_off.number)


@dataclass
class _PutOff:
    """Whether a signal has to wait, and which one does. A mask would not do: it binds one thread of many."""

    active: bool = False
    number: int | None = None


_put_off = _PutOff()


def _leave(number: int, _: FrameType | None) -> None:
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)
    os._exit(128 + number)
