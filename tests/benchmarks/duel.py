"""Two ways to the same cell, taking steps in turn on the same cores: what disturbs one disturbs the other.

Launches differ by several per cent on small machines, and more where others work; steps that take turns share what
comes and goes. `python -m tests.benchmarks GLOB` prints the ratios of the pairs whose names match.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from parbench.errors import Unsupported
from tests.benchmarks.arms import BUILT_IN, KINDS, Ours, Script, Task, take_turns
from tests.benchmarks.bare.local_sgd import PERIOD

ROUNDS, TURNS = 10, 16


@dataclass(frozen=True)
class Pair:
    """A strategy and what it is compared with: a script, or another strategy."""

    name: str
    task: Task
    ours: Ours
    other: Script | Ours

    @property
    def steps(self) -> int:
        """The steps of a turn, in which local SGD averages once."""
        return PERIOD if self.ours.strategy == "local_sgd" else 2


def pairs() -> list[Pair]:
    """Every strategy in every phase, for each family that it takes, and more ways of training."""
    return [
        Pair(f"{name}-{task}", task, ours, other)
        for family in KINDS
        for name, phase, ours, other in [*every_strategy(family), *more_training()]
        if is_possible(ours, task := Task(family, phase))
    ]


def every_strategy(family: str) -> Iterator[tuple[str, Any, Ours, Script | Ours]]:
    """The defaults of each built-in strategy beside the script of its name."""
    # A data axis is all that an LSTM can have beside its pipeline.
    axes = {"data": 2, "pipeline": 2, "tensor": 1} if family == "lstm" else {"data": 1, "pipeline": 2, "tensor": 2}
    special = {"hybrid": Ours("hybrid", 4, axes)}
    for name, cls in BUILT_IN.items():
        ours = special.get(name) or Ours(name, 2 if cls.scales else 1)
        yield from ((name, phase, ours, Script(name)) for phase in cls.phases)


def more_training() -> Iterator[tuple[str, Any, Ours, Script | Ours]]:
    """Options that have scripts of their own, and `hybrid` over one axis beside the strategy that it then is."""
    yield "zero1", "train", Ours("ddp", options={"shard_optimizer": True}), Script("ddp", "zero1")
    for schedule in ("naive", "gpipe", "interleaved_1f1b", "interleaved_zero_bubble", "zbv", "dualpipev"):
        yield (
            schedule,
            "train",
            Ours("model_parallel", options={"schedule": schedule}),
            Script("model_parallel", schedule),
        )
    yield "hybrid-data-ddp", "train", _hybrid(data=2), Ours("ddp")
    yield "hybrid-data-fsdp", "train", _hybrid(data=2, data_parallel="fsdp"), Ours("fsdp")
    yield "hybrid-tensor", "train", _hybrid(tensor=2), Ours("tensor_parallel")
    yield "hybrid-pipeline", "train", _hybrid(pipeline=2), Ours("model_parallel")


def _hybrid(**axes: Any) -> Ours:
    return Ours("hybrid", options={"data": 1, "pipeline": 1, "tensor": 1, **axes})


def is_possible(ours: Ours, task: Task) -> bool:
    """Whether the strategy takes the workload."""
    try:
        ours.layout(task)
    except Unsupported:
        return False
    return True


class Ratios(NamedTuple):
    """How fast ours is, as a part of the other's speed: by the clock, and by the CPU time that both took."""

    speed: float
    cpu: float


def duel(pair: Pair, number: int, turns: int = TURNS) -> Ratios:
    """Round `number`."""
    arms, layout = (pair.ours, pair.other), pair.ours.layout(pair.task)
    ours, others = take_turns(arms, layout, pair.task, number=number, turns=turns, steps=pair.steps)
    both = list(zip(ours, others, strict=True))
    return Ratios(
        statistics.median(other.wall_s / own.wall_s for own, other in both),
        statistics.median(other.cpu_s / own.cpu_s for own, other in both),
    )
