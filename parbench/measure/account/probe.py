"""Watches a few steps after the window, and writes the account of their time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from parbench.measure.account.exchanges import sum_up_exchanges
from parbench.measure.account.intervals import Interval, intersection, length
from parbench.measure.account.marks import PREFIX, STEP, marked
from parbench.measure.account.parts import Parts, cut, overlapped
from parbench.measure.account.trace import Trace, read_trace
from parbench.measure.probes.traffic import Call
from parbench.records.account import MEETING, AccountRecord, Part, Span
from parbench.strategies.base import StepPart

WATCHED_STEPS = 3
MAX_STEPS = 64
"""A longer cycle is not watched: it would take longer than the answer is worth."""

MAX_SPANS = 400
SHORTEST_SPAN = 1 / 2000
"""Of a step: what is shorter cannot be seen in a drawing of it, and is joined with its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is to be watched: whole cycles of steps, from number `first` on, and the methods that are their parts.

    `calls` are those that one cycle makes to process groups, where they are known. `meet` returns once all ranks of the
    model have called it.
    """

    step: Callable[[int], None]
    first: int
    cycle: int
    parts: Sequence[StepPart]
    calls: Sequence[Call] | None
    device: torch.device
    meet: Callable[[], None]


def account_for_steps(watch: Watch, trace_file: Path | None) -> AccountRecord | None:
    """Takes steps under the profiler; all its events go to `trace_file`, if there is one. None for too long a cycle.

    The profiler's own first steps are slow: a cycle is taken before those that count.
    """
    if watch.cycle > MAX_STEPS:
        return None
    steps = -(-WATCHED_STEPS // watch.cycle) * watch.cycle
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if watch.device.type == "cuda" else [])]
    warm = watch.first + watch.cycle
    with marked(watch.parts), profile(activities=activities) as profiler:
        for index in range(watch.first, warm):
            watch.step(index)
        with record_function(MEETING):
            watch.meet()
        started = time.perf_counter_ns()
        for index in range(warm, warm + steps):
            with record_function(PREFIX + STEP):
                watch.step(index)
        if watch.device.type == "cuda":
            torch.cuda.synchronize(watch.device)
        profiled_ns = time.perf_counter_ns() - started
    if trace_file is not None:
        profiler.export_chrome_trace(str(trace_file))
    trace = read_trace(profiler.profiler.kineto_results.events())
    return _write(trace, cut(trace), steps, profiled_ns, watch.calls)


def _write(trace: Trace, parts: Parts, steps: int, profiled_ns: int, calls: Sequence[Call] | None) -> AccountRecord:
    """Seconds a step. What passes between two steps, and around all of them, is unexplained as well."""
    seconds: dict[Part, float] = {part: length(moments) / steps / 1e9 for part, moments in parts.items()}
    outside = profiled_ns / steps / 1e9 - sum(seconds.values())
    seconds["unexplained"] = seconds.get("unexplained", 0.0) + max(0.0, outside)
    return AccountRecord(
        steps=steps,
        profiled_s=sum(seconds.values()),
        parts={part: value for part, value in seconds.items() if value},
        overlapped_s=length(overlapped(trace, parts)) / steps / 1e9,
        exchanges=sum_up_exchanges(trace, calls, steps),
        timeline=tuple(_draw(parts, trace.steps[-1])),
    )


def _draw(parts: Parts, step: Interval) -> list[Span]:
    """The parts of one step in the order of time, without what is too short to be seen."""
    start, end = step
    shortest = (end - start) * SHORTEST_SPAN
    inside = [
        ((part, *moments)) for part, all_moments in parts.items() for moments in intersection([step], all_moments)
    ]
    spans: list[Span] = []
    for part, begun, ended in sorted(inside, key=lambda span: span[1]):
        if ended - begun < shortest:
            continue
        if spans and spans[-1].part == part and (begun - start) / 1e9 - spans[-1].end_s < shortest / 1e9:
            spans[-1] = spans[-1]._replace(end_s=(ended - start) / 1e9)
        else:
            spans.append(Span(part, (begun - start) / 1e9, (ended - start) / 1e9))
    return sorted(sorted(spans, key=lambda span: span.start_s - span.end_s)[:MAX_SPANS], key=lambda span: span.start_s)
