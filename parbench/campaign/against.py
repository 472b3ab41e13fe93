"""A against B on this machine, now: two arms take turns in one campaign, launch by launch."""

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from parbench.campaign.arms import Arm, Arms, plan_for, servers
from parbench.campaign.progress import Progress
from parbench.campaign.proving import expected_proofs, prove, verify
from parbench.campaign.recorder import Recorder
from parbench.campaign.run import most_ranks, prepare_corpora, run_record
from parbench.campaign.tasks import Origin, shuffled_rounds
from parbench.launch.open_files import require_open_files
from parbench.plan.cells import Cell, Plan
from parbench.results.store import Run, Store, read_run
from parbench.system.environment import differences


def run_arms(
    plan: Plan, arms: Arms, folder: Path, progress: Progress, *, command: Sequence[str]
) -> tuple[Run, Run, list[str]]:
    """Measures both arms in every round. Returns the runs of candidate and base, and sentences on how they differ.

    Which arm goes first is balanced over the rounds, in random order. The arms' servers are started anew for every
    round: what differs between two processes by chance, such as where their libraries lie in memory, is then noise
    between rounds, and no difference between the arms.
    """
    require_open_files(most_ranks(plan))
    corpora, rounds = prepare_corpora(plan), shuffled_rounds(plan)
    order = random.Random(plan.scenario.measure.seed)  # noqa: S311 - a shuffle, not a secret
    # The launches of one cell in one round have turns of their own.
    turns = {(task.key, task.repeat): _balanced(arms, plan.scenario.measure.rounds, order) for task in rounds}
    expected = {task.launch for task in (*expected_proofs(plan), *rounds)}
    recorders: dict[str, Recorder] = {}
    with contextlib.ExitStack() as stack:
        stores = {arm.name: stack.enter_context(Store.locked(folder / arm.name)) for arm in arms}
        stack.enter_context(progress.campaign(len(expected) * len(arms), already=0))
        with servers(arms) as (launchers, greetings):
            plans = {arm.name: plan_for(arm, launchers[arm.name], greetings[arm.name], plan) for arm in arms}
            for arm in arms:
                launcher, greeting = launchers[arm.name], greetings[arm.name]
                arm_plan, store = plans[arm.name], stores[arm.name]
                store.begin(run_record(arm_plan, store.folder, greeting.environment, corpora, command))
                recorders[arm.name] = Recorder(
                    plan=arm_plan,
                    store=store,
                    launcher=launcher,
                    origin=Origin(greeting.environment.digest),
                    corpora=corpora,
                    progress=progress,
                    outlines={},
                    expected=expected,
                )
                prove(arm_plan, recorders[arm.name])
        for _, group in groupby(rounds, key=lambda task: task.round):
            with _fresh_servers(recorders, arms):
                for task in group:
                    for arm in turns[task.key, task.repeat][task.round]:
                        recorder = recorders[arm.name]
                        recorder.take(replace(task, cell=_cell(recorder.plan, task.cell.record.id)))
        with _fresh_servers(recorders, arms):
            for recorder in recorders.values():
                verify(recorder.plan, recorder)
    candidate, base = (read_run(folder / arm.name) for arm in arms)
    changed = differences(*(greetings[arm.name].environment for arm in reversed(arms)))
    return candidate, base, [f"The arms differ in {field}: {old} → {new}." for field, old, new in changed]


@contextlib.contextmanager
def _fresh_servers(recorders: Mapping[str, Recorder], arms: Arms) -> Iterator[None]:
    """Starts a server for each arm, by which its recorder launches as long as the block lasts."""
    with servers(arms) as (launchers, greetings):
        for name, recorder in recorders.items():
            recorder.launcher, recorder.origin = launchers[name], Origin(greetings[name].environment.digest)
        yield


def _cell(plan: Plan, name: str) -> Cell:
    """The cell with this id."""
    return next(cell for cell in plan.cells if cell.record.id == name)


def _balanced(arms: Arms, rounds: int, order: random.Random) -> list[Sequence[Arm]]:
    """The order of the arms in each round: each arm is first in half of the rounds, which are chosen at random."""
    turns: list[Sequence[Arm]] = [arms if number % 2 else arms[::-1] for number in range(rounds)]
    order.shuffle(turns)
    return turns
