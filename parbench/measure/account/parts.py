"""Cuts the time of a rank's steps into parts: every moment belongs to one, so that they add up to the whole."""

from bisect import bisect_right
from collections.abc import Iterable

from parbench.measure.account.intervals import Interval, Intervals, difference, intersection, union
from parbench.measure.account.marks import BACKWARD
from parbench.measure.account.trace import Trace
from parbench.records.account import Part

PHASES: tuple[Part, ...] = ("optimizer", "loss", "backward", "forward")
"""The parts that are code of the strategy and its model; where they enclose each other, the first has the moment."""

COMPUTING: tuple[Part, ...] = (*PHASES, "other")

Parts = dict[Part, list[Interval]]


class _Rest:
    """The moments that no part has taken yet."""

    def __init__(self, moments: Iterable[Interval]) -> None:
        self.left = union(moments)
        self.parts: Parts = {}

    def give(self, part: Part, moments: Intervals) -> None:
        """Gives `part` those of the moments that are left."""
        taken = intersection(self.left, moments)
        self.left = difference(self.left, moments)
        self.parts[part] = union([*self.parts.get(part, ()), *taken])


def cut(trace: Trace) -> Parts:
    """The moments of each part. What is computed on a GPU counts when it runs there, not when it is launched."""
    return _cut_device(trace) if trace.kernels else _cut_host(trace)


def overlapped(trace: Trace, parts: Parts) -> list[Interval]:
    """The moments in which something is exchanged while the rank does something else than wait for it."""
    waiting = union([*parts.get("communication", ()), *parts.get("pipeline", ())])
    return difference(intersection(trace.exchanging, union(trace.steps)), waiting)


def _cut_host(trace: Trace) -> Parts:
    """On CPU the thread that takes the steps computes, waits or does neither; other threads may compute for it."""
    rest = _Rest(trace.steps)
    rest.give("pipeline", difference(trace.mark("pipeline"), trace.mark(*PHASES)))
    rest.give("communication", union([*trace.waits, *_ends_of_backward(trace)]))
    rest.give("data", trace.mark("data"))
    for phase in PHASES:
        rest.give(phase, intersection(trace.mark(phase), trace.operators))
    rest.give("other", trace.operators)
    rest.give("host", trace.mark(*PHASES))
    rest.give("unexplained", rest.left)
    return rest.parts


def _ends_of_backward(trace: Trace) -> list[Interval]:
    """The ends of backward passes, after their last node, in which exchanges still run.

    There DistributedDataParallel waits for its last buckets, in C++, so that no event says so.
    """
    ends = []
    starts = [start for start, _ in trace.nodes]
    for start, end in trace.mark(BACKWARD):
        place = bisect_right(starts, end) - 1
        if place >= 0 and trace.nodes[place][1] > start:
            ends.append((trace.nodes[place][1], end))
    return difference(intersection(union(ends), trace.exchanging), trace.operators)


def _cut_device(trace: Trace) -> Parts:
    """On a GPU a kernel belongs to the part that launched it; the host's time is what no kernel fills."""
    ends = [end for (_, end), _ in trace.kernels] + [end for _, end in trace.steps]
    rest = _Rest([(min(start for start, _ in trace.steps), max(ends))])
    phases = {phase: trace.mark(phase) for phase in PHASES}
    by_phase: dict[Part, list[Interval]] = {part: [] for part in COMPUTING}
    for kernel, launched in trace.kernels:
        by_phase[next((phase for phase in PHASES if _holds(phases[phase], launched)), "other")].append(kernel)
    for part, kernels in by_phase.items():
        rest.give(part, union(kernels))
    # Where stages wait for each other, NCCL's kernels for their messages run and wait as well.
    rest.give("pipeline", difference(trace.mark("pipeline"), trace.mark(*PHASES)))
    rest.give("communication", trace.exchanging)
    rest.give("data", trace.mark("data"))
    rest.give("host", union(trace.steps))
    rest.give("unexplained", rest.left)
    return rest.parts


def _holds(intervals: Intervals, moment: int) -> bool:
    place = bisect_right(intervals, (moment, 2**63)) - 1
    return place >= 0 and intervals[place][0] <= moment < intervals[place][1]
