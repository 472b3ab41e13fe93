"""A against B on this machine, now: two arms take turns in one campaign, launch by launch."""

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from parbench.arms import Arm, Arms, plan_for, servers
from parbench.cells import Cell, Plan
from parbench.environment import differences
from parbench.launch.remote.protocol import Greeting
from parbench.progress import Progress
from parbench.results.store import RUN_FILE, Run, Store, read_run
from parbench.run import Origin, measure, prepare_corpora, run_record, schedule


def run_arms(
    plan: Plan, arms: Arms, folder: Path, progress: Progress, *, command: Sequence[str]
) -> tuple[Run, Run, list[str]]:
    """Measures both arms in every round, who goes first balanced at random; their runs and how their software differs.

    Servers are started anew in every round: what one has by luck, such as where its libraries lie in memory, is then
    noise between rounds and never a difference between the arms.
    """
    corpora, tasks = prepare_corpora(plan), schedule(plan)
    order = random.Random(plan.scenario.measure.seed)  # noqa: S311 - a shuffle, not a secret
    turns = {task.key: _balanced(arms, plan.scenario.measure.rounds, order) for task in tasks}
    plans: Mapping[str, Plan] = {}
    greetings: Mapping[str, Greeting] = {}
    with contextlib.ExitStack() as stack:
        stores = {arm.name: stack.enter_context(Store.locked(folder / arm.name)) for arm in arms}
        stack.enter_context(progress.campaign(len(tasks) * len(arms), already=0))
        for _, group in groupby(tasks, key=lambda task: (task.purpose, task.round)):
            with servers(arms) as (launchers, greetings):
                plans = plans or {
                    arm.name: plan_for(arm, launchers[arm.name], greetings[arm.name], plan) for arm in arms
                }
                for arm in arms:
                    store, environment = stores[arm.name], greetings[arm.name].environment
                    if not (store.folder / RUN_FILE).exists():
                        store.begin(run_record(plan, store.folder, environment, corpora, command))
                for task in group:
                    for arm in turns[task.key][task.round]:
                        # An older parbench does not know every purpose that a trial can have.
                        if task.purpose not in greetings[arm.name].purposes:
                            continue
                        progress.starts(task.cell.record, task.purpose, task.round)
                        trial = measure(
                            plans[arm.name],
                            replace(task, cell=_cell(plans[arm.name], task.cell.record.id)),
                            corpora[task.cell.record.workload],
                            stores[arm.name].folder / "trials" / task.folder_name,
                            launchers[arm.name],
                            Origin(greetings[arm.name].environment.digest),
                        )
                        stores[arm.name].append(trial)
                        progress.ends(task.cell.record, trial)
    candidate, base = (read_run(folder / arm.name) for arm in arms)
    changed = differences(*(greetings[arm.name].environment for arm in reversed(arms)))
    return candidate, base, [f"The arms differ in {field}: {old} → {new}." for field, old, new in changed]


def _cell(plan: Plan, name: str) -> Cell:
    """The cell of that id."""
    return next(cell for cell in plan.cells if cell.record.id == name)


def _balanced(arms: Arms, rounds: int, order: random.Random) -> list[Sequence[Arm]]:
    """Who goes when, round by round: each arm is first in half of the rounds, and which rounds is random."""
    turns: list[Sequence[Arm]] = [arms if number % 2 else arms[::-1] for number in range(rounds)]
    order.shuffle(turns)
    return turns
