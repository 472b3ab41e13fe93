"""`python -m tests.benchmarks.gathering [ROUNDS]`: what fsdp wins by gathering the next block's parameters ahead.

Two teams of two ranks take turns: fsdp as it is, and fsdp that waits for every exchange where it asks for it.
"""

import statistics
import sys
from dataclasses import dataclass

from torch.distributed.fsdp import FSDPModule

from parbench.figures.statistics import summarise
from parbench.measure.phases import Steps
from parbench.records.corpus import Corpus
from tests.benchmarks.arms import KINDS, SMALL, Ours, Sizes, Task, take_turns
from tests.benchmarks.defaults import STEPS, TURNS, WIDE
from tests.benchmarks.ranks import Step

ROUNDS = 4


@dataclass(frozen=True)
class Waiting(Ours):
    """fsdp that gathers parameters when they are needed."""

    def build(self, task: Task, corpus: Corpus, rank: int, ranks: int) -> Step:
        """Its step."""
        steps = super().build(task, corpus, rank, ranks)
        assert isinstance(steps, Steps)
        model = steps.strategy.model
        model._set_unshard_async_op(False)
        for unit in model.modules():
            if isinstance(unit, FSDPModule):
                unit.set_modules_to_forward_prefetch([])
        return steps


def describe(family: str, sizes: Sizes, rounds: int) -> str:
    """A line: how many times as fast as the one that waits, with its interval, by CPU time, and in memory."""
    task = Task(family, "train", sizes)
    arms = [Waiting("fsdp"), Ours("fsdp")]
    speeds, cpu_speeds, memories = [], [], []
    for number in range(rounds):
        waiting, ahead = take_turns(arms, arms[0].layout(task), task, number=number, turns=TURNS, steps=STEPS)
        both = list(zip(waiting, ahead, strict=True))
        speeds.append(statistics.median(one.wall_s / other.wall_s for one, other in both))
        cpu_speeds.append(statistics.median(one.cpu_s / other.cpu_s for one, other in both))
        memories.append(ahead[-1].memory / waiting[-1].memory)
    mean, low, high = summarise(speeds)
    cpu, memory = statistics.median(cpu_speeds), statistics.median(memories)
    return f"{family} {sizes.name} speed {mean:.3f} [{low:.3f}, {high:.3f}] cpu {cpu:.3f} mem {memory:.2f}"


if __name__ == "__main__":
    for kind in reversed(KINDS):
        for size in (SMALL, WIDE):
            print(describe(kind, size, int(sys.argv[1]) if sys.argv[1:] else ROUNDS), flush=True)
