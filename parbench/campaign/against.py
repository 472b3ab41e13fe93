"""A against B on this machine, now: two arms take turns in one campaign, launch by launch."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from parbench.campaign.arms import Arm, Arms, plan_for, servers
from parbench.campaign.progress import Progress
from parbench.campaign.proving import expected_proofs, prove, verify
from parbench.campaign.recorder import Recorder
from parbench.campaign.run import most_ranks, prepare_corpora, run_record
from parbench.campaign.tasks import Origin, Task, shuffled_rounds
from parbench.check.looks import Looks
from parbench.launch.open_files import require_open_files
from parbench.plan.cells import Cell, Plan
from parbench.records.run import RunRecord
from parbench.results.store import Run, Store, read_run
from parbench.system.environment import differences

Decided = Callable[[Run, Run], bool]
"""Whether the rounds of candidate and base so far are enough."""


def run_arms(
    plan: Plan,
    arms: Arms,
    folder: Path,
    progress: Progress,
    *,
    command: Sequence[str],
    looks: Looks | None = None,
    decided: Decided | None = None,
) -> tuple[Run, Run, list[str]]:
    """Measures both arms in every round. Returns the runs of candidate and base, and sentences on how they differ.

    Which arm goes first is balanced over the rounds, in random order. The arms' servers are started anew for every
    round: what differs between two processes by chance, such as where their libraries lie in memory, is then noise
    between rounds, and no difference between the arms. With `looks`, the campaign has as many rounds as one of them
    says: it goes on until `decided`, or to the last.
    """
    plan = plan.unexplained()
    require_open_files(most_ranks(plan))
    stops = looks.rounds if looks else (plan.scenario.measure.rounds,)
    corpora, rounds = prepare_corpora(plan), shuffled_rounds(_of_rounds(plan, stops[-1]))
    order = random.Random(plan.scenario.measure.seed)  # noqa: S311 - a shuffle, not a secret
    # The launches of one cell in one round have turns of their own.
    turns = {(task.key, task.repeat): _balanced(arms, stops, order) for task in rounds}
    expected = {task.launch for task in (*expected_proofs(plan), *rounds) if task.round < stops[0]}
    recorders: dict[str, Recorder] = {}
    records: dict[str, RunRecord] = {}
    with contextlib.ExitStack() as stack:
        stores = {arm.name: stack.enter_context(Store.locked(folder / arm.name)) for arm in arms}
        stack.enter_context(progress.campaign(len(expected) * len(arms), already=0))
        with servers(arms) as (launchers, greetings):
            first = _of_rounds(plan, stops[0])
            plans = {arm.name: plan_for(arm, launchers[arm.name], greetings[arm.name], first) for arm in arms}
            for arm in arms:
                launcher, greeting = launchers[arm.name], greetings[arm.name]
                arm_plan, store = plans[arm.name], stores[arm.name]
                records[arm.name] = run_record(arm_plan, store.folder, greeting.environment, corpora, command)
                store.begin(records[arm.name])
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
        for stop in stops:
            for name, recorder in recorders.items():
                recorder.plan = _of_rounds(recorder.plan, stop)
                scenario = recorder.plan.scenario.resolved()
                stores[name].begin(records[name].model_copy(update={"rounds": stop, "scenario": scenario}))
            for _, group in groupby(_between(rounds, stops, stop), key=lambda task: task.round):
                with _fresh_servers(recorders, arms):
                    for task in group:
                        for arm in turns[task.key, task.repeat][task.round]:
                            recorder = recorders[arm.name]
                            recorder.take(replace(task, cell=_cell(recorder.plan, task.cell.record.id)))
            with _fresh_servers(recorders, arms):
                for recorder in recorders.values():
                    verify(recorder.plan, recorder)
            candidate, base = (read_run(folder / arm.name) for arm in arms)
            if decided and decided(candidate, base):
                break
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


def _of_rounds(plan: Plan, rounds: int) -> Plan:
    """The plan with so many rounds."""
    measure = plan.scenario.measure.model_copy(update={"rounds": rounds})
    return replace(plan, scenario=plan.scenario.model_copy(update={"measure": measure}))


def _between(tasks: Sequence[Task], stops: Sequence[int], stop: int) -> list[Task]:
    """The tasks of the rounds from the stop before this one on."""
    start = max((each for each in stops if each < stop), default=0)
    return [task for task in tasks if start <= task.round < stop]


def _balanced(arms: Arms, stops: Sequence[int], order: random.Random) -> list[Sequence[Arm]]:
    """The order of the arms in each round: between stops, each arm is first in half of the rounds, chosen at random."""
    turns: list[Sequence[Arm]] = []
    for stop in stops:
        batch: list[Sequence[Arm]] = [arms if number % 2 else arms[::-1] for number in range(len(turns), stop)]
        order.shuffle(batch)
        turns += batch
    return turns
