"""What a rank exchanges with others in a step, counted by torch's profiler after the timed steps."""

import math
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

from parbench.records.trial import TrafficRecord

BACKENDS = ("gloo:", "nccl:")


RECEIVING = ("recv", "recvAnySource")


MAX_STEPS = 64
"""A longer cycle is not profiled: it would take longer than the answer is worth."""


_BYTES = {"double": 8, "long int": 8, "float": 4, "int": 4, "c10::Half": 2, "c10::BFloat16": 2}


def count_traffic(step: Callable[[int], None], steps: range) -> TrafficRecord | None:
    """Calls to process groups and the bytes given to them, per step, averaged over `steps`; None for too many steps."""
    if len(steps) > MAX_STEPS:
        return None
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        for index in steps:
            step(index)
    events = profiled.profiler.kineto_results.events()
    calls = [event for event in events if event.name().startswith(BACKENDS)]
    given_bytes = sum(_size(call) for call in calls if call.name().partition(":")[2] not in RECEIVING)
    return TrafficRecord(calls=len(calls) / len(steps), given_bytes=given_bytes / len(steps))


def _size(call: Any) -> int:
    """The bytes of the tensors that a call was given; elements of types that are not listed count as one byte."""
    return sum(
        math.prod(shape) * _BYTES.get(kind, 1)
        for shape, kind in zip(call.shapes(), call.dtypes(), strict=True)
        if shape
    )
