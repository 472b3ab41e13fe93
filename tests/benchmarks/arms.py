"""What takes turns: a strategy of parbench, or a script of plain torch, at a task; and the turns."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

from parbench.base_types import Phase
from parbench.data.batches import StackedBatches
from parbench.data.corpus import prepare
from parbench.data.sources import StandardLibraryText
from parbench.measure.phases import STEPS
from parbench.models.base import FAMILIES
from parbench.records.corpus import Corpus
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import STRATEGIES, Context, Layout
from parbench.system.devices import Devices
from parbench.training.workload import Workload
from tests.benchmarks.bare.models import GLOBAL_BATCH, HEADS, LAYERS, LENGTH, PROMPT, WIDTH, Setting
from tests.benchmarks.ranks import Step, Team, Turn

WARMUP = 5
KINDS = ("lstm", "transformer")
"""The families of which there are models by hand."""
BUILT_IN = {name: cls for name, cls in STRATEGIES.classes().items() if cls.__module__.startswith("parbench.")}
"""Plug-ins that happen to be installed are none of ours."""


class Sizes(NamedTuple):
    """How large a workload is: its model's width and layers, and sequences of `length` tokens in the global batch."""

    name: str
    width: int
    length: int
    batch: int
    layers: int = LAYERS


SMALL = Sizes("small", WIDTH, LENGTH, GLOBAL_BATCH)
"""What the scripts have: activations take more memory than parameters."""


@dataclass(frozen=True)
class Task:
    """What all arms compute: a family's model in a phase."""

    family: str
    phase: Phase = "train"
    sizes: Sizes = SMALL

    def spec(self) -> WorkloadSpec:
        """The workload; of a sequence that is continued, half is the prompt."""
        heads = {"heads": HEADS} if self.family == "transformer" else {}
        _, width, length, batch, layers = self.sizes
        family = FAMILIES[self.family](layers=layers, d_model=width, **heads)
        new_tokens = length - length * PROMPT // LENGTH if self.phase == "generate" else None
        return WorkloadSpec(model=family, seq_len=length, global_batch=batch, phase=self.phase, new_tokens=new_tokens)

    def __str__(self) -> str:
        return f"{self.family}-{self.phase}"


@dataclass(frozen=True)
class Ours:
    """A strategy of parbench with its options, over `devices`."""

    strategy: str
    devices: int = 2
    options: dict[str, Any] = field(default_factory=dict)

    def layout(self, task: Task) -> Layout:
        """Its layout on CPU; raises `Unsupported` where there is none."""
        cls = STRATEGIES[self.strategy]
        options = cls.options_type.model_validate(self.options)
        return cls.layout(options, task.spec(), Devices(kind="cpu", count=self.devices))

    def build(self, task: Task, corpus: Corpus, rank: int, ranks: int) -> Step:
        """A step of the strategy, set up and fed as the worker does it."""
        cls, layout, spec = STRATEGIES[self.strategy], self.layout(task), task.spec()
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
        strategy = cls(cls.options_type.model_validate(self.options))
        strategy.setup(workload, lane * layout.stacked, context)
        if task.phase != "train":
            strategy.model.eval()
        stacks = [workload.batches(lane * layout.stacked + number) for number in range(layout.stacked)]
        batches = stacks[0] if len(stacks) == 1 else StackedBatches(stacks)
        place = {"shard": shard, "shards": layout.data_shards}
        training, validation = (partial(get, **place) for get in (batches.training, batches.validation))
        return STEPS[task.phase](strategy, spec, training, validation, 0)


@dataclass(frozen=True)
class Script:
    """A function of a module of `bare/`; by default the one that is named after the phase."""

    module: str
    function: str = ""

    def build(self, task: Task, corpus: Corpus, rank: int, ranks: int) -> Step:
        """The script's step."""
        module = import_module(f"tests.benchmarks.bare.{self.module}")
        step: Step = getattr(module, self.function or task.phase)(Setting(task.family, corpus.path, rank, ranks))
        return step


def token_file(length: int = LENGTH) -> Corpus:
    """The text that all arms read, in sequences of so many tokens."""
    return prepare(StandardLibraryText(), seq_len=length, seed=0, folder=Path())


def take_turns(
    arms: Sequence[Ours | Script], layout: Layout, task: Task, *, number: int, turns: int, steps: int
) -> list[list[Turn]]:
    """The turns of each arm in fresh ranks, with `steps` steps a turn.

    Arms that are built later, or work after a certain other, may be at an advantage: rounds, by their `number`, begin
    with different ones, and turns go forward and back.
    """
    order = [(index + number) % len(arms) for index in range(len(arms))]
    taken: list[list[Turn]] = [[] for _ in arms]
    corpus = token_file(task.sizes.length)
    with ExitStack() as stack:
        teams = {}
        for index in order:
            build = partial(arms[index].build, task, corpus)
            team = Team(layout.processes, build, pinned=layout.devices_per_process == 1)
            teams[index] = stack.enter_context(team)
            teams[index].take(range(WARMUP))
        for turn in range(turns):
            first = WARMUP + turn * steps
            for index in order if turn % 2 else reversed(order):
                taken[index].append(teams[index].take(range(first, first + steps)))
    return taken
