"""Twins of the reference: what rounding alone does to its losses, and what mistakes do that parity must not miss."""

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from parbench.data.batches import Batch
from parbench.measure.failures import finite
from parbench.measure.phases import forward_only
from parbench.records.assignment import PARITY_STEPS, Twin
from parbench.records.trial import TwinRecord
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Strategy
from parbench.training.workload import Workload

IDLE_STEPS = 20
"""How long an idle twin is followed after it has stopped to learn."""

SetUp = Callable[[Workload], Strategy[Options]]
"""Builds the first model of a workload under the reference strategy."""

Shard = tuple[int, int]
"""Which of how many parts of a global batch."""


class Course(NamedTuple):
    """What a twin does: a model learns from each of `shards`, in `accumulated` parts, for `learning` steps.

    Where the loss is not `own`, which is that of what the model learns from, it is that of the whole batch.
    """

    shards: tuple[Shard, ...] = ((0, 1),)
    accumulated: int = 1
    own: bool = True
    learning: int | None = None


def follow_twin(twin: Twin, workload: Workload, set_up: SetUp, steps: int, quiet: int = 0) -> TwinRecord:
    """The losses of `twin` in its first `steps` steps, in nats per token of the global batch.

    Its models are followed one after another, so that only one of them is in memory.
    """
    course = _course(twin, workload.spec)
    steps = steps if course.learning is None else min(steps, course.learning + IDLE_STEPS)
    varied = workload.varied(gradient_accumulation=course.accumulated)
    losses = [_losses(course, shard, varied, set_up, steps, quiet) for shard in course.shards]
    return TwinRecord(twin=twin, losses=tuple(statistics.fmean(step) for step in zip(*losses, strict=True)))


def _course(twin: Twin, spec: WorkloadSpec) -> Course:
    accumulated = spec.gradient_accumulation
    match twin.kind:
        case "split":
            return Course(accumulated=accumulated * twin.parts)
        case "apart":
            return Course(shards=tuple((part, twin.parts) for part in range(twin.parts)), accumulated=accumulated)
        case "half":  # whose parts need not be equal
            return Course(shards=((0, twin.parts),), own=spec.phase != "train")
        case "idle":
            return Course(accumulated=accumulated, learning=PARITY_STEPS)


def quietly(strategy: Strategy[Options], steps: range, quiet: int) -> Iterator[int]:
    """The numbers of the steps; during the first `quiet` of them the learning rate is zero.

    So a strategy that goes wrong after some steps has the right parameters when it does, and its mistake shows as
    clearly as one in the first step.
    """
    rates: list[Any] = []
    for index in steps:
        if quiet and index == 0:
            rates = [group["lr"] for group in strategy.updates.optimizer.param_groups]
            _set_rates(strategy, [0.0] * len(rates))
        if quiet and index == quiet:
            _set_rates(strategy, rates)
        yield index


def _set_rates(strategy: Strategy[Options], rates: Sequence[Any]) -> None:
    for group, rate in zip(strategy.updates.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _losses(course: Course, shard: Shard, workload: Workload, set_up: SetUp, steps: int, quiet: int) -> list[float]:
    strategy = set_up(workload)
    batches = workload.batches(0)
    losses: list[Tensor | None] = []
    for index in quietly(strategy, range(steps), quiet):
        if not workload.trains:
            losses.append(_evaluate(strategy, batches.validation(index, *shard)))
        elif course.learning is not None and index >= course.learning:
            losses.append(_evaluate(strategy, batches.training(index)))
        else:
            whole = None if course.own else _evaluate(strategy, batches.training(index))
            own = strategy.step(batches.training(index, *shard))
            losses.append(own if whole is None else whole)
    strategy.close()
    del strategy
    gc.collect()
    return [finite(loss, f"the loss of step {index}")[0] for index, loss in enumerate(losses) if loss is not None]


def _evaluate(strategy: Strategy[Options], batch: Batch) -> Tensor | None:
    with forward_only(strategy.model)():
        return strategy.evaluate(batch)
