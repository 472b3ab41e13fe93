"""What a rank exchanged in watched steps: the profiler's moments beside the calls that were counted in other steps."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from parbench.measure.account.intervals import Interval, length, union
from parbench.measure.account.trace import Trace
from parbench.measure.probes.traffic import Call
from parbench.records.account import ExchangeRecord

SHOWN_AS = {
    "reduce_scatter": ("reduce_scatter", "all_reduce"),
    "all_to_all": ("all_to_all", "send_recv"),
    "send": ("send", "send_recv"),
    "recv": ("recv", "send_recv"),
}
"""The events of calls that a backend makes of others: gloo reduces all to scatter it, NCCL sends all parts to all."""


class _Event(NamedTuple):
    moments: Interval
    name: str


class _Line(NamedTuple):
    """What is summed up in one record: of events that no call explains, only their name is known."""

    name: str
    axis: str | None = None
    ranks: int | None = None


def sum_up_exchanges(trace: Trace, calls: Sequence[Call] | None, steps: int) -> tuple[ExchangeRecord, ...]:
    """A record of each kind and axis of a mesh, per step; `calls` are those of one cycle of steps, if they are known.

    Every step of a cycle makes the same calls in the same order as in the cycle before, so that the events of the
    watched steps, in the order in which they begin, belong to one call each. Where there are more or fewer events, as
    where a backend joins several calls, axes and bytes stay unknown.
    """
    events = _events(trace)
    pairs = _pair(events, calls or ())
    if pairs is None:
        entries = [(_Line(event.name), event, 0) for event in events]
    else:
        entries = [(_Line(call.kind, call.axis, call.ranks), event, call.given_bytes) for event, call in pairs]
    return tuple(_records(entries, steps, with_bytes=pairs is not None))


def _events(trace: Trace) -> list[_Event]:
    """The exchanges that begin in the watched steps, in that order."""
    first, last = trace.steps[0][0], trace.steps[-1][1]
    every = (_Event(moments, name) for name, many in trace.exchanges.items() for moments in many)
    return sorted(event for event in every if first <= event.moments[0] < last)


def _pair(events: Sequence[_Event], calls: Sequence[Call]) -> list[tuple[_Event, Call]] | None:
    """Each event with its call, of a cycle that comes again and again; None where they do not fit."""
    if not calls or len(events) % len(calls):
        return None
    pairs = list(zip(events, [*calls] * (len(events) // len(calls)), strict=True))
    fit = all(event.name in SHOWN_AS.get(call.kind, (call.kind,)) for event, call in pairs)
    return pairs if fit else None


def _records(entries: Iterable[tuple[_Line, _Event, int]], steps: int, *, with_bytes: bool) -> Iterable[ExchangeRecord]:
    moments: defaultdict[_Line, list[Interval]] = defaultdict(list)
    given_bytes: defaultdict[_Line, int] = defaultdict(int)
    for line, event, size in entries:
        moments[line].append(event.moments)
        given_bytes[line] += size
    for line in sorted(moments, key=str):
        yield ExchangeRecord(
            **line._asdict(),
            calls=len(moments[line]) / steps,
            seconds=length(union(moments[line])) / steps / 1e9,
            given_bytes=given_bytes[line] / steps if with_bytes else None,
        )
