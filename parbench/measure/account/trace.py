"""What torch's profiler saw of some steps, sorted by what it means for the account of their time."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from parbench.measure.account.intervals import Interval, Intervals, union
from parbench.measure.account.marks import PREFIX, STEP, WAIT

EXCHANGE = re.compile(r"^(?:gloo|mpi):(\w+)|^nccl:(\w+)|^nccl\w*Kernel_([A-Za-z]+)")
"""The names of collectives, sends and receives: gloo's events from the call to its end, and NCCL's kernels."""

WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
"""Where a word begins in a name such as `AllReduce`."""

EXCHANGING = ("c10d::", "_c10d_functional::")
"""The operators that exchange something, or wait for it."""

NODE = "autograd::engine::evaluate_function"
"""Encloses the operators of a node of the backward pass, and whatever Python runs in it."""

COMPILED = "CompiledFxGraph"
"""Encloses code that torch.compile made, whose parts are no operators."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Moments of some steps of a rank, in nanoseconds on the profiler's clock.

    steps: each step, as the thread that takes it saw it. marks: by the names that `marked` gives.
    operators: those at work on any thread. On a GPU the operators are `kernels` on it instead, each with the moment in
    which it was launched.
    nodes: those of the backward pass, on the thread that takes the steps.
    waits: calls that exchange something or wait for it, on that thread.
    exchanges: of each kind, the moments of every one.
    """

    steps: list[Interval]
    marks: dict[str, list[Interval]] = field(default_factory=dict)
    operators: Intervals = ()
    nodes: Intervals = ()
    waits: Intervals = ()
    exchanges: dict[str, list[Interval]] = field(default_factory=dict)
    kernels: list[tuple[Interval, int]] = field(default_factory=list)

    def mark(self, *names: str) -> list[Interval]:
        """The moments within any of these marks."""
        return union(each for name in names for each in self.marks.get(name, ()))

    @property
    def exchanging(self) -> list[Interval]:
        """The moments in which anything is exchanged."""
        return union(each for moments in self.exchanges.values() for each in moments)


def read_trace(events: Iterable[Any]) -> Trace:
    """Sorts the events of torch's profiler (`_KinetoEvent`)."""
    every = [_Event(event) for event in events]
    main = next((event.thread for event in every if event.name == PREFIX + STEP), 0)
    on_host, on_gpu = ([event for event in every if event.on_gpu is place] for place in (False, True))
    own = [event for event in on_host if event.thread == main]
    marks, exchanges = _moments_by(own, _name_of_mark), _moments_by(on_host, _kind_of_exchange)
    launches = {event.correlation: event.moments[0] for event in on_host if event.is_launch}
    if on_gpu:
        # NCCL's kernels tell its times; on the host it only starts them, and annotations name them a second time.
        exchanges = _moments_by((event for event in on_gpu if not event.is_annotation), _kind_of_exchange)
    return Trace(
        steps=marks.pop(STEP, []),
        operators=union(event.moments for event in on_host if event.is_operator),
        nodes=union(event.moments for event in own if event.name.startswith(NODE)),
        waits=union([*marks.pop(WAIT, []), *(event.moments for event in own if event.name.startswith(EXCHANGING))]),
        marks=marks,
        exchanges=exchanges,
        kernels=[
            (event.moments, launches.get(event.correlation, event.moments[0])) for event in on_gpu if event.is_kernel
        ],
    )


class _Event:
    """An event as the profiler gives it, read once."""

    def __init__(self, event: Any) -> None:
        self.name: str = event.name()
        self.moments: Interval = event.start_ns(), event.start_ns() + event.duration_ns()
        self.thread: int = event.start_thread_id()
        self.correlation: int = event.correlation_id()
        self.on_gpu = event.device_type().name == "CUDA"
        self.is_annotation: bool = event.is_user_annotation()
        self.is_hidden: bool = event.is_hidden_event()

    @property
    def is_kernel(self) -> bool:
        """Whether it is a kernel that computes, or a copy or a filling of memory, and not a name for several."""
        return self.on_gpu and not self.is_annotation and not _kind_of_exchange(self)

    @property
    def is_launch(self) -> bool:
        """Whether it is a call of CUDA that starts something on the device."""
        return not self.on_gpu and self.name.startswith(("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMem"))

    @property
    def is_operator(self) -> bool:
        """Whether it is an operator, or compiled code that stands for many, and not a name that encloses some."""
        if self.is_hidden or self.name.startswith(("[", NODE, *EXCHANGING)) or _kind_of_exchange(self):
            return False
        return COMPILED in self.name or not (self.is_annotation or self.name.startswith("cu"))


def _kind_of_exchange(event: _Event) -> str | None:
    """Such as `all_reduce`, which NCCL's kernels call `AllReduce`; None for an event that exchanges nothing."""
    match = EXCHANGE.match(event.name)
    name = next(filter(None, match.groups()), None) if match else None
    return WORD.sub("_", name).lower() if name else None


def _name_of_mark(event: _Event) -> str | None:
    return event.name.removeprefix(PREFIX) if event.name.startswith(PREFIX) else None


def _moments_by(events: Iterable[_Event], name: Callable[[_Event], str | None]) -> dict[str, list[Interval]]:
    moments: defaultdict[str, list[Interval]] = defaultdict(list)
    for event in events:
        if (key := name(event)) is not None:
            moments[key].append(event.moments)
    return dict(moments)
