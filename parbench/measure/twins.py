"""Twins of the reference: how far its losses move by rounding alone, and by mistakes that parity must not miss."""

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from parbench.data.batches import Batch
from parbench.measure.failures import require_finite
from parbench.measure.phases import choose_forward_mode
from parbench.records.assignment import PARITY_STEPS, Twin
from parbench.records.trial import TwinRecord
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Strategy
from parbench.training.workload import Workload

IDLE_STEPS = 20
"""How many steps an idle twin is followed after it has stopped learning."""

SetUp = Callable[[Workload], Strategy[Options]]
"""Builds the first model of a workload under the reference strategy."""

Shard = tuple[int, int]
"""The number of a part of the global batch, and how many parts there are."""


class Training(NamedTuple):
    """How a twin is trained: one model a shard, each step in `accumulated` parts, for `learning` steps (None: all).

    The recorded loss is that of the shard which the model learns from (`own`), or that of the whole batch.
    """

    shards: tuple[Shard, ...] = ((0, 1),)
    accumulated: int = 1
    own: bool = True
    learning: int | None = None


def follow_twin(twin: Twin, workload: Workload, set_up: SetUp, steps: int, quiet: int = 0) -> TwinRecord:
    """The losses of `twin` in its first `steps` steps, in nats per token of the global batch.

    Its models are trained one after another, so that only one is in memory at a time.
    """
    training = _plan_training(twin, workload.spec)
    steps = steps if training.learning is None else min(steps, training.learning + IDLE_STEPS)
    varied = workload.varied(gradient_accumulation=training.accumulated)
    losses = [_train(training, shard, varied, set_up, steps, quiet) for shard in training.shards]
    return TwinRecord(twin=twin, losses=tuple(statistics.fmean(step) for step in zip(*losses, strict=True)))


def _plan_training(twin: Twin, spec: WorkloadSpec) -> Training:
    accumulated = spec.gradient_accumulation
    match twin.kind:
        case "split":
            return Training(accumulated=accumulated * twin.parts)
        case "apart":
            return Training(shards=tuple((part, twin.parts) for part in range(twin.parts)), accumulated=accumulated)
        case "half":  # of the batch, whose parts need not be equal
            return Training(shards=((0, twin.parts),), own=spec.phase != "train")
        case "idle":
            return Training(accumulated=accumulated, learning=PARITY_STEPS)


def hold_learning_rate(strategy: Strategy[Options], steps: range, quiet: int) -> Iterator[int]:
    """Yields the numbers of the steps; the learning rate is zero during the first `quiet` of them.

    A strategy that goes wrong only after some steps then still has the initial parameters when it does, so its mistake
    shows as clearly as one in the first step.
    """
    rates: list[Any] = []
    for index in steps:
        if quiet and index == 0:
            rates = [group["lr"] for group in _groups(strategy)]
            _set_rates(strategy, [0.0] * len(rates))
        if quiet and index == quiet:
            _set_rates(strategy, rates)
        yield index


def _set_rates(strategy: Strategy[Options], rates: Sequence[Any]) -> None:
    for group, rate in zip(_groups(strategy), rates, strict=True):
        group["lr"] = rate


def _groups(strategy: Strategy[Options]) -> list[dict[str, Any]]:
    return [group for optimizer in strategy.optimizers() for group in optimizer.param_groups]


def _train(training: Training, shard: Shard, workload: Workload, set_up: SetUp, steps: int, quiet: int) -> list[float]:
    strategy = set_up(workload)
    batches = workload.batches(0)
    losses: list[Tensor | None] = []
    for index in hold_learning_rate(strategy, range(steps), quiet):
        if not workload.trains:
            losses.append(_evaluate(strategy, batches.validation(index, *shard)))
        elif training.learning is not None and index >= training.learning:
            losses.append(_evaluate(strategy, batches.training(index)))
        else:
            whole = None if training.own else _evaluate(strategy, batches.training(index))
            own = strategy.step(batches.training(index, *shard))
            losses.append(own if whole is None else whole)
    strategy.close()
    del strategy
    gc.collect()
    return [
        require_finite(loss, f"the loss of step {index}")[0] for index, loss in enumerate(losses) if loss is not None
    ]


def _evaluate(strategy: Strategy[Options], batch: Batch) -> Tensor | None:
    with choose_forward_mode(strategy.model)():
        return strategy.evaluate(batch)
