"""Ctrl-C, SIGTERM and SIGHUP end a command in order; a second signal ends it at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(BaseException):
    """A signal asked parbench to end; `advice` says how to resume.

    It is no `Exception`, so that no handler of failures catches it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.advice = ""

    def __str__(self) -> str:
        return f"Interrupted by {signal.Signals(self.exit_code - 128).name}{self.advice}"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """The first signal raises `Interrupted`, the second one exits: the processes of this one then end by themselves.

    A signal that is ignored stays ignored: so `nohup` and background jobs of a shell go on.
    """
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]

    def first(number: int, _: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, _exit_now)
        if _delay.is_active:
            _delay.signal = number
        else:
            raise Interrupted(number)

    before = {number: signal.signal(number, first) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays the first signal until the block has ended: what is written in it must be whole."""
    _delay.is_active, _delay.signal = True, None
    try:
        yield
    finally:
        _delay.is_active = False
    if _delay.signal is not None:
        raise Interrupted(_delay.signal)


class _Delay:
    """Whether signals are delayed now, and the one that has arrived meanwhile.

    A signal mask cannot do this: it holds for one thread only.
    """

    is_active = False
    signal: int | None = None


_delay = _Delay()


def _exit_now(number: int, _: FrameType | None) -> None:
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)
    os._exit(128 + number)
