"""What a rank says to the others in a step, counted by torch's profiler once all that is timed is over."""

import math
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

from parbench.records.trial import TrafficRecord

BACKENDS = ("gloo:", "nccl:")


RECEIVING = ("recv", "recvAnySource")


MOST_STEPS = 64


_BYTES = {"double": 8, "long int": 8, "float": 4, "int": 4, "c10::Half": 2, "c10::BFloat16": 2}


def count_traffic(step: Callable[[int], None], steps: range) -> TrafficRecord | None:
    """Calls and bytes of a step, the mean over `steps`; None where those are more than it is worth waiting for."""
    if len(steps) > MOST_STEPS:
        return None
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        for index in steps:
            step(index)
    events = profiled.profiler.kineto_results.events()
    calls = [event for event in events if event.name().startswith(BACKENDS)]
    given = sum(_bytes(call) for call in calls if call.name().partition(":")[2] not in RECEIVING)
    return TrafficRecord(calls=len(calls) / len(steps), given_bytes=given / len(steps))


def _bytes(call: Any) -> int:
    """The size of the tensors that a call was given; a type that is not known here counts a byte an element."""
    return sum(
        math.prod(shape) * _BYTES.get(kind, 1)
        for shape, kind in zip(call.shapes(), call.dtypes(), strict=True)
        if shape
    )
