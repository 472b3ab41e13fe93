"""Warm-up, which is over once steps have stopped getting faster."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from parbench.measure.clock import time_steps
from parbench.measure.team import Team

CHUNK_STEPS = 4
CHUNK_S = 0.1
MAX_CHUNKS = 25
TOLERANCE = 0.05


class WarmUp(NamedTuple):
    """How many steps warm-up took and how many seconds; whether it ended `steady`; seconds per step at its end.

    A fixed length counts as steady: whether it was long enough shows in the window (`figures.steadiness`).
    """

    steps: int
    seconds: float
    steady: bool
    step_s: float


def warm_up(
    step: Callable[[int], None], first: int, length: int | Literal["auto"], team: Team, device: torch.device
) -> WarmUp:
    """Runs `step(0)`, `step(1)`, …: `length` steps, or until they are steady, but at least `first`.

    Chunks have at least 4 steps and take at least 0.1 s. Steps are steady once the mean step of a chunk is less than
    5 % faster than that of the chunk before. Every rank of `team` decides by the slowest rank's times, so all stop
    after the same step.
    """
    count = first if length == "auto" else max(first, length)
    timing = time_steps(step, range(count), device)
    seconds, step_s = timing.total_s, team.find_slowest(timing.total_s / count)
    if length != "auto":
        return WarmUp(count, seconds, True, team.find_slowest(_second_half_mean(timing.steps_s)))
    for _ in range(MAX_CHUNKS):
        chunk = max(CHUNK_STEPS, math.ceil(CHUNK_S / step_s))
        total_s = time_steps(step, range(count, count + chunk), device).total_s
        count, seconds, before, step_s = count + chunk, seconds + total_s, step_s, team.find_slowest(total_s / chunk)
        if step_s > before * (1 - TOLERANCE):
            return WarmUp(count, seconds, True, step_s)
    return WarmUp(count, seconds, False, step_s)


def _second_half_mean(steps_s: tuple[float, ...]) -> float:
    second_half = steps_s[len(steps_s) // 2 :]
    return sum(second_half) / len(second_half)
