"""How far a trial's losses lie from its reference's, how far rounding alone may lead, and how far mistakes would."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from parbench.figures.generation import closest_choices, job_sequences
from parbench.figures.losses import job_losses, job_validations
from parbench.figures.speed import job_steps
from parbench.records.assignment import PARITY_STEPS
from parbench.records.trial import Trial, TwinRecord

PARITY_TOLERANCE = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 5e-3}
"""How far a loss may lie from the reference in the first steps, in nats per token; below fp32, rounding depends on
shapes."""

ROUNDING_SPREAD = 10
"""How many times the split reference's deviation a strategy's rounding may reach: sums have more than two orders."""

TOKENS_MUST_AGREE = ("fp32",)
"""Precisions in which generated tokens must be the reference's. In others, rounding may swap two close logits."""

CLOSE_CHOICE = 1e-4
"""How far two logits of an fp32 model must lie apart for rounding not to swap them: ten times a loss's tolerance."""


def tolerances(reference: Trial, precision: str) -> list[float]:
    """How far each step's loss may lie from the reference's, in nats per token.

    Rounding errors of different steps are independent of each other, so that what they add up to grows with the square
    root of the number of steps (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 2.8), as long as
    training does not amplify them. Where it does, an error grows by the same factors whatever its size was: so the
    reference is followed once more with its batches split, which rounds otherwise, and a strategy may deviate a fixed
    number of times as far as that has by then. Where one rounding decides between two ways, as that of a router does,
    the tolerance is no less than what that may do.
    """
    base = max([PARITY_TOLERANCE[precision], *(rank.rounding_jump for rank in reference.ranks)])
    losses = job_losses(reference).get(0, [])
    split = next((record.losses for record in twins(reference) if record.twin.kind == "split"), ())
    measured = [abs(a - b) for a, b in itertools.zip_longest(split, losses, fillvalue=0.0)] if split else []
    grown = list(itertools.accumulate(measured, max))
    return [
        max(base * math.sqrt(max(1.0, step / PARITY_STEPS)), ROUNDING_SPREAD * (grown[step - 1] if grown else 0.0))
        for step in range(1, len(losses) + 1)
    ]


class Deviation(NamedTuple):
    """The largest distance of any model's loss (nats per token), how many tolerances it is at the worst step, the first
    step that lies outside of its tolerance, if any, and how many steps were compared.
    """

    nats: float
    excess: float
    first: int | None
    steps: int


MISSING = Deviation(math.inf, math.inf, 1, 0)
"""The deviation of a trial that lacks losses which the reference has."""


def compare(trial: Trial, reference: Trial, precision: str) -> Deviation:
    """All losses that a trial and its reference have of the same steps of the same models."""
    own, expected, steps = job_losses(trial), job_losses(reference), job_steps(trial)
    if not steps or not steps.keys() <= expected.keys():
        return MISSING
    common = {job: min(count, len(expected[job])) for job, count in steps.items()}
    if any(count == 0 or len(own.get(job, [])) < count for job, count in common.items()):
        return MISSING
    away = step_deviations(trial, reference)
    excess = [distance / allowed for distance, allowed in zip(away, tolerances(reference, precision), strict=False)]
    first = next((step for step, share in enumerate(excess, start=1) if share > 1), None)
    return Deviation(max(away), max(excess), first, min(common.values()))


def step_deviations(trial: Trial, reference: Trial) -> list[float]:
    """The largest distance of any model's loss from the reference's at each step that both have, in nats per token."""
    own, expected = job_losses(trial), job_losses(reference)
    pairs = [
        [abs(a - b) for a, b in zip(losses, expected[job], strict=False)]
        for job, losses in own.items()
        if job in expected
    ]
    # Models may have taken different numbers of steps.
    return [max(step) for step in itertools.zip_longest(*pairs, fillvalue=0.0)]


def parity_deviation(trial: Trial, reference: Trial) -> float:
    """The largest distance between two trials' losses, in nats per token; infinite if one lacks a loss."""
    return compare(trial, reference, "fp32").nats


def validation_deviation(trial: Trial, reference: Trial, precision: str) -> Deviation | None:
    """How far the validation losses lie from the reference's after equally many steps; None where it has none."""
    own, expected, allowed = job_validations(trial), job_validations(reference), tolerances(reference, precision)
    pairs = [
        (steps, abs(loss - expected[job][steps]))
        for job, by_steps in own.items()
        for steps, loss in by_steps.items()
        if steps in expected.get(job, {}) and 0 < steps <= len(allowed)
    ]
    if not pairs or {job for job, each in own.items() if each.keys() & expected.get(job, {}).keys()} != own.keys():
        return None
    steps, nats = max(pairs, key=lambda pair: pair[1] / allowed[pair[0] - 1])
    excess = nats / allowed[steps - 1]
    return Deviation(nats, excess, steps if excess > 1 else None, steps)


def power(reference: Trial, precision: str, kind: str, parts: int) -> float:
    """How many tolerances a wrong twin deviates; NaN where there is no such twin."""
    return _furthest(reference, kind, parts, tolerances(reference, precision))


def twin_deviation(reference: Trial, kind: str, parts: int) -> float:
    """How far a twin's losses deviate, in nats per token; NaN where there is no such twin."""
    return _furthest(reference, kind, parts, [1.0] * len(job_losses(reference).get(0, [])))


def _furthest(reference: Trial, kind: str, parts: int, units: Sequence[float]) -> float:
    losses = job_losses(reference).get(0, [])
    of_kind = (each.losses for each in twins(reference) if (each.twin.kind, each.twin.parts) == (kind, parts))
    course = next(of_kind, ())
    return max((abs(a - b) / unit for a, b, unit in zip(course, losses, units, strict=False)), default=math.nan)


def twins(reference: Trial) -> Iterator[TwinRecord]:
    """The twins that were computed beside a reference."""
    return (record for rank in reference.ranks for record in rank.twins)


class Differing(NamedTuple):
    """How many sequences were generated otherwise than by the reference; and how many more were, with an excuse.

    The excuse is that two of the reference's logits lay so close at one of their tokens that rounding may swap them.
    """

    sequences: int
    excused: int


def compare_sequences(trial: Trial, reference: Trial) -> Differing:
    """All sequences that a trial and its reference generated in the same steps; those that are missing differ."""
    own, expected, reach = job_sequences(trial), job_sequences(reference), job_steps(reference)
    closest = closest_choices(reference)
    differing = excused = 0
    for job, steps in job_steps(trial).items():
        ours, theirs = own.get(job, []), expected.get(job, [])
        # The reference has them step by step, equally many in each, and may have gone further.
        share = min(1.0, steps / reach[job]) if reach.get(job) else 1.0
        expected_so_far = theirs[: round(len(theirs) * share)]
        same = sum((Counter(ours) & Counter(expected_so_far)).values())
        comparable = len(ours) if steps <= reach.get(job, steps) else len(expected_so_far)
        others = max(comparable, len(expected_so_far)) - same
        missed = (Counter(expected_so_far) - Counter(ours)).elements() if comparable == len(expected_so_far) else ()
        close = sum(closest.get(digest, math.inf) < CLOSE_CHOICE for digest in missed)
        differing += others - min(close, others)
        excused += min(close, others)
    return Differing(differing, excused)


def differing_sequences(trial: Trial, reference: Trial) -> int:
    """How many sequences were generated otherwise than by the reference, without an excuse."""
    return compare_sequences(trial, reference).sequences
