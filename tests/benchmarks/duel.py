"""Two ways to the same cell in the same ranks, taking steps in turn: what disturbs one disturbs the other.

Launches differ by several per cent on small machines, and more where others work; steps that take turns share all of
that. `python -m tests.benchmarks GLOB` prints the ratios of the pairs whose names match.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

from parbench.data.batches import StackedBatches
from parbench.data.corpus import prepare
from parbench.data.sources import StandardLibraryText
from parbench.measure.phases import STEPS
from parbench.models.base import FAMILIES
from parbench.records.corpus import Corpus
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import STRATEGIES, Context
from parbench.system.devices import Devices
from parbench.training.workload import Workload
from tests.benchmarks.bare import (
    data_parallel,
    ddp,
    ensemble,
    fsdp,
    inference,
    local_sgd,
    pipeline,
    single,
    task_pool,
    tensor_parallel,
    zero1,
)
from tests.benchmarks.bare.models import GLOBAL_BATCH, HEADS, LAYERS, LENGTH, PROMPT, WIDTH, Setting, Step

ROUNDS, WARMUP, TURNS = 10, 8, 16


@dataclass(frozen=True)
class Ours:
    """A strategy of parbench with its options, over `devices`."""

    strategy: str
    devices: int = 2
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A strategy and what it is compared with: a script, or another strategy. Turns are of `steps` steps."""

    name: str
    ours: Ours
    other: Callable[[Setting], Step] | Ours
    family: str
    phase: str = "train"
    steps: int = 2

    @property
    def processes(self) -> int:
        return 1 if self.ours.strategy == "data_parallel" else self.ours.devices


def pairs() -> list[Pair]:
    both, transformer = ("lstm", "transformer"), ("transformer",)
    trained = [
        ("single", Ours("single", 1), single.build, both),
        ("data_parallel", Ours("data_parallel"), data_parallel.build, both),
        ("ddp", Ours("ddp"), ddp.build, both),
        ("zero1", Ours("ddp", options={"shard_optimizer": True}), zero1.build, both),
        ("fsdp", Ours("fsdp"), fsdp.build, both),
        ("tensor_parallel", Ours("tensor_parallel"), tensor_parallel.build, transformer),
        ("naive", _pipeline("naive"), pipeline.naive, both),
        ("gpipe", _pipeline("gpipe"), pipeline.gpipe, both),
        ("1f1b", _pipeline("1f1b"), pipeline.one_forward_one_backward, both),
        ("interleaved_1f1b", _pipeline("interleaved_1f1b"), pipeline.interleaved_1f1b, transformer),
        (
            "interleaved_zero_bubble",
            _pipeline("interleaved_zero_bubble"),
            pipeline.interleaved_zero_bubble,
            transformer,
        ),
        ("zbv", _pipeline("zbv"), pipeline.zbv, transformer),
        ("dualpipev", _pipeline("dualpipev"), pipeline.dualpipev, transformer),
        ("task_pool", Ours("task_pool"), task_pool.build, both),
        ("ensemble", Ours("ensemble", 1), ensemble.build, transformer),
        ("hybrid-data-ddp", _hybrid(data=2), Ours("ddp"), both),
        ("hybrid-data-fsdp", _hybrid(data=2, data_parallel="fsdp"), Ours("fsdp"), both),
        ("hybrid-tensor", _hybrid(tensor=2), Ours("tensor_parallel"), transformer),
        ("hybrid-pipeline", _hybrid(pipeline=2), Ours("model_parallel"), both),
    ]
    found = [Pair(f"{name}-{family}", *arms, family) for name, *arms, families in trained for family in families]
    for family in both:
        # A turn has one average.
        found.append(Pair(f"local_sgd-{family}", Ours("local_sgd"), local_sgd.build, family, steps=local_sgd.PERIOD))
        for phase, script in (("score", inference.score), ("generate", inference.generate)):
            found += [
                Pair(f"{phase}-{name}-{family}", Ours(name, devices), script, family, phase)
                for name, devices in (("single", 1), ("ddp", 2))
            ]
    return found


def _pipeline(schedule: str) -> Ours:
    return Ours("model_parallel", options={"schedule": schedule})


def _hybrid(**axes: Any) -> Ours:
    return Ours("hybrid", options={"data": 1, "pipeline": 1, "tensor": 1, **axes})


def token_file() -> Corpus:
    return prepare(StandardLibraryText(), seq_len=LENGTH, seed=0, folder=Path())


def strategy_step(ours: Ours, pair: Pair, corpus: Corpus, rank: int) -> Step:
    """A step of the strategy, set up and fed as the worker does it."""
    sizes = {"heads": HEADS} if pair.family == "transformer" else {}
    family = FAMILIES[pair.family](layers=LAYERS, d_model=WIDTH, **sizes)
    new_tokens = LENGTH - PROMPT if pair.phase == "generate" else None
    spec = WorkloadSpec(
        model=family, seq_len=LENGTH, global_batch=GLOBAL_BATCH, phase=pair.phase, new_tokens=new_tokens
    )
    cls = STRATEGIES[ours.strategy]
    options = cls.options_type.model_validate(ours.options)
    layout = cls.layout(options, spec, Devices(kind="cpu", count=ours.devices))
    lane, shard = layout.coordinate(rank)
    cpus, each = sorted(os.sched_getaffinity(0)), layout.devices_per_process
    workload = Workload(spec, corpus, seed=0, device=torch.device("cpu"))
    context = Context(
        rank=rank % layout.ranks_per_lane,
        ranks=layout.ranks_per_lane,
        devices=(torch.device("cpu"),) * each,
        cores=tuple((cpu,) for cpu in cpus[:each]),
        threads=1,
        group=distributed.group.WORLD if layout.lanes == 1 else None,
        stacked=layout.stacked,
    )
    strategy = cls(options)
    strategy.setup(workload, lane * layout.stacked, context)
    if pair.phase != "train":
        strategy.model.eval()
    stacks = [workload.batches(lane * layout.stacked + number) for number in range(layout.stacked)]
    batches = stacks[0] if len(stacks) == 1 else StackedBatches(stacks)
    where = (shard, layout.data_shards)
    return STEPS[spec.phase](
        strategy,
        spec,
        lambda index: batches.training(index, *where),
        lambda index: batches.validation(index, *where),
        verified=0,
    )


def take_turns(rank: int, pair: Pair, corpus: Corpus, swapped: bool, turns: int) -> tuple[list[Any], list[Any]]:
    """Seconds of each turn of (ours, the other) as the slowest rank saw them, and CPU seconds of all ranks."""
    everything = sorted(os.sched_getaffinity(0))
    arms = ("ours", "other")
    steps: dict[str, Step] = {}
    for arm in reversed(arms) if swapped else arms:
        os.sched_setaffinity(0, everything)
        made = pair.ours if arm == "ours" else pair.other
        steps[arm] = (
            strategy_step(made, pair, corpus, rank)
            if isinstance(made, Ours)
            else made(Setting(pair.family, corpus.path, rank, pair.processes))
        )
        for index in range(WARMUP):
            steps[arm](index)
    wall, cpu = torch.zeros(2, turns, 2, dtype=torch.float64)
    for turn in range(turns):
        for arm in arms if turn % 2 else reversed(arms):
            distributed.barrier()
            first = WARMUP + turn * pair.steps
            started, used = time.perf_counter(), time.process_time()
            for index in range(first, first + pair.steps):
                steps[arm](index)
            wall[turn, arms.index(arm)] = time.perf_counter() - started
            cpu[turn, arms.index(arm)] = time.process_time() - used
    distributed.all_reduce(wall, distributed.ReduceOp.MAX)
    distributed.all_reduce(cpu)
    return wall.tolist(), cpu.tolist()


class Ratios(NamedTuple):
    """How fast ours is, as a part of the other's speed: by the clock, and by the CPU time that both took."""

    speed: float
    cpu: float


def duel(pair: Pair, corpus: Corpus, round_number: int, turns: int = TURNS) -> Ratios:
    """One round: fresh ranks, in which every other round builds the arms in the other order."""
    from tests.benchmarks.ranks import in_ranks

    pinned = pair.ours.devices == pair.processes
    (times, *_) = in_ranks(pair.processes, take_turns, pair, corpus, bool(round_number % 2), turns, pin=pinned)
    return Ratios(*(statistics.median(other / ours for ours, other in each) for each in times))
