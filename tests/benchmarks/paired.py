"""`python -m tests.benchmarks.paired [ROUNDS] [TURNS]`: is the account of a step right about what exchanges cost?

Three teams of two ranks take turns: ddp; ddp whose gradients stay where they are, so that all is as before but for the
exchanges; and two models that know nothing of each other, each with as large a part of the batch, so that nothing is
wrapped. Of their steps' times, the first difference is what exchanges cost, the second what the wrapper does. Beside
them stands what ddp's own account calls exposed and overlapped communication.
"""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import distributed
from torch.distributed import GradBucket
from torch.futures import Future

from parbench.figures.statistics import RoundId, mean_over_rounds
from parbench.measure.account.probe import Watch, account_for_steps
from parbench.measure.phases import Steps
from parbench.records.account import AccountRecord
from parbench.records.corpus import Corpus
from tests.benchmarks.arms import KINDS, WARMUP, Ours, Script, Task, take_turns, token_file
from tests.benchmarks.ranks import Step, Team, Turn

ROUNDS, TURNS, STEPS = 6, 12, 3
RANKS = 2
WATCH = 1_000_000
"""The number of a step that stands for an account of some."""


@dataclass(frozen=True)
class Silent(Ours):
    """ddp, with gradients that no rank hears of."""

    def build(self, task: Task, corpus: Corpus, rank: int, ranks: int) -> Step:
        """Its step, with a hook that gives every bucket back as it is."""
        steps = super().build(task, corpus, rank, ranks)
        assert isinstance(steps, Steps)
        steps.strategy.model.register_comm_hook(None, keep_quiet)
        return steps


def keep_quiet(_: object, bucket: GradBucket) -> Future[torch.Tensor]:
    """A hook for DDP that exchanges nothing."""
    future: Future[torch.Tensor] = Future()
    future.set_result(bucket.buffer())
    return future


@dataclass(frozen=True)
class Copies(Ours):
    """A model on each rank that trains on as many sequences as a rank of ddp has, and on its own."""

    def build(self, task: Task, corpus: Corpus, rank: int, ranks: int) -> Step:
        """The step of one device with a part of the batch."""
        part = replace(task, sizes=task.sizes._replace(batch=task.sizes.batch // ranks))
        return super().build(part, corpus, 0, 1)


@dataclass(frozen=True)
class Watched(Ours):
    """ddp, which also accounts for its steps when step `WATCH` is asked for, into files of `folder`."""

    folder: str = ""

    def build(self, task: Task, corpus: Corpus, rank: int, ranks: int) -> Step:
        """Its step."""
        steps = super().build(task, corpus, rank, ranks)
        assert isinstance(steps, Steps)

        def step(index: int) -> None:
            if index < WATCH:
                steps(index)
                return
            account = account_for_steps(
                Watch(
                    step=steps,
                    first=steps.taken,
                    cycle=1,
                    parts=steps.strategy.step_parts(),
                    calls=None,
                    device=torch.device("cpu"),
                    meet=distributed.barrier,
                ),
                None,
            )
            assert account is not None
            Path(self.folder, f"{rank}.json").write_text(account.model_dump_json())

        return step


class Round(NamedTuple):
    """Seconds of a step in fresh ranks: of each team, and what ddp's account says of its own."""

    exchanging: float
    silent: float
    copies: float
    exposed: float
    overlapped: float
    profiled: float


def measure(task: Task, number: int, turns: int) -> Round:
    """One round: the median of each team's turns, and the account of the rank that is waited for."""
    arms: Sequence[Ours | Script] = [Ours("ddp"), Silent("ddp"), Copies("single", devices=1)]
    taken = take_turns(arms, arms[0].layout(task), task, number=number, turns=turns, steps=STEPS)
    exchanging, silent, copies = (_step_s(each) for each in taken)
    account = min(watch(task), key=_exposed)
    return Round(exchanging, silent, copies, _exposed(account), account.overlapped_s, account.profiled_s)


def watch(task: Task) -> list[AccountRecord]:
    """The account of each rank of ddp, in ranks of their own."""
    with tempfile.TemporaryDirectory() as folder:
        build = partial(Watched("ddp", folder=folder).build, task, token_file(task.sizes.length))
        with Team(RANKS, build, pinned=True) as team:
            team.take(range(WARMUP))
            team.take(range(WATCH, WATCH + 1))
        return [AccountRecord.model_validate_json(file.read_text()) for file in Path(folder).iterdir()]


def _exposed(account: AccountRecord) -> float:
    return account.parts.get("communication", 0.0)


def _step_s(turns: Sequence[Turn]) -> float:
    return statistics.median(turn.wall_s for turn in turns) / STEPS


def describe(task: Task, rounds: Sequence[Round]) -> str:
    """A paragraph: the differences in milliseconds, with their 95 % intervals over rounds."""

    def line(name: str, values: Sequence[float]) -> str:
        mean, low, high = mean_over_rounds({RoundId(0, number): 1000 * each for number, each in enumerate(values)})
        return f"    {name:58} {mean:6.2f} ms [{low:.2f}, {high:.2f}]"

    return "\n".join(
        [
            f"{task}, global batch {task.sizes.batch} × {task.sizes.length}, {RANKS} ranks, {len(rounds)} rounds",
            line("a step of ddp", [each.exchanging for each in rounds]),
            line("of these, exchanges: ddp less ddp that exchanges nothing", [e.exchanging - e.silent for e in rounds]),
            line("of these, the wrapper: that less two models on their own", [e.silent - e.copies for e in rounds]),
            line("its account: exposed communication", [each.exposed for each in rounds]),
            line("its account: communication that something overlaps", [each.overlapped for each in rounds]),
            line("a step under the profiler", [each.profiled for each in rounds]),
        ]
    )


def main(rounds: int = ROUNDS, turns: int = TURNS) -> None:
    """Prints a paragraph for each family."""
    for family in KINDS:
        task = Task(family)
        print(describe(task, [measure(task, number, turns) for number in range(rounds)]), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
