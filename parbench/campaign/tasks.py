"""One launch of a campaign: the assignment of its ranks, and the trial that their records make."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from parbench.errors import UnwrittenError
from parbench.launch.base import Launcher, Outcome
from parbench.launch.failure_cause import find_cause
from parbench.launch.trial_folder import log_tail, prepare_folder, read_ranks, remove_caches
from parbench.measure.journal import EXIT_UNWRITTEN
from parbench.plan.cell_key import without_compilation
from parbench.plan.cells import Cell, Plan
from parbench.records.assignment import PARITY_STEPS, TIMED, Assignment, Purpose, Twin
from parbench.records.corpus import Corpus
from parbench.records.trial import Status, Trial
from parbench.results.disturbance import warnings_of
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import STRATEGIES
from parbench.system.cgroups import MemoryGroup, memory_group
from parbench.system.cpus import cpus_of
from parbench.system.devices import Devices
from parbench.system.files import require_room


class Launch(NamedTuple):
    """Identifies a launch within a run: its purpose, the key of what it computes, its round, and its number there."""

    purpose: Purpose
    key: str
    round: int = 0
    repeat: int = 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One launch that a campaign has to make; `workload` is the cell's own unless another one is given.

    `repeat` counts the launches of one cell in one round from 0.

    An untimed one takes `steps` steps, the first `quiet_steps` of them at a learning rate of zero, validates after the
    steps in `validate_at`, and computes `twins` at the end.
    """

    purpose: Purpose
    cell: Cell
    key: str
    models: int
    round: int = 0
    repeat: int = 0
    workload: WorkloadSpec | None = None
    steps: int = PARITY_STEPS
    quiet_steps: int = 0
    validate_at: tuple[int, ...] = ()
    twins: tuple[Twin, ...] = ()

    @property
    def launch(self) -> Launch:
        """Identifies the launch within a run."""
        return Launch(self.purpose, self.key, self.round, self.repeat)

    @property
    def name(self) -> str:
        """The cell's id; a reference belongs to all cells of its workload."""
        return f"{self.cell.record.workload}/reference" if self.purpose == "reference" else self.cell.record.id

    @property
    def folder_name(self) -> str:
        """The name of the folder with the trial's files; it holds numbers and hashes only."""
        place = f"r{self.round:03d}-" if self.purpose in TIMED else ""
        kind = "" if self.purpose == "measure" else f"{self.purpose}-"
        return f"{kind}{place}{self.key}" + f"-{self.repeat}" * (self.repeat > 0)


class Origin(NamedTuple):
    """The digests of the environment and of the code that measures, in which trials must agree to be compared."""

    environment: str
    code: str = ""


def shuffled_rounds(plan: Plan) -> list[Task]:
    """The tasks of all rounds; in each round, all cells and their companions in a random order of its own.

    A cell that a round launches several times is spread evenly over it, from a random place on: what slows the machine
    down for a part of the round meets some of its launches, and not all.
    """
    order = random.Random(plan.scenario.measure.seed)  # noqa: S311 - a shuffle, not a secret
    return [task for number in range(plan.scenario.measure.rounds) for task in _shuffled_round(plan, number, order)]


def _shuffled_round(plan: Plan, number: int, order: random.Random) -> list[Task]:
    """The tasks of one round; each has a place in it from 0 to 1."""
    times = plan.launches_a_round
    once = [_timed(cell, number, 0) for cell in plan.runnable if times[cell.record.key] == 1]
    once += [replace(_timed(cell, number, 0), purpose="companion") for cell in plan.companions]
    order.shuffle(once)
    places = [((index + 0.5) / len(once), task) for index, task in enumerate(once)]
    for cell in plan.runnable:
        if (count := times[cell.record.key]) > 1:
            start = order.random()
            places += [((repeat + start) / count, _timed(cell, number, repeat)) for repeat in range(count)]
    return [task for _, task in sorted(places, key=lambda pair: pair[0])]


def _timed(cell: Cell, number: int, repeat: int) -> Task:
    record = cell.record
    return Task(purpose="measure", cell=cell, key=record.key, round=number, repeat=repeat, models=record.models)


def measure(plan: Plan, task: Task, corpus: Corpus, folder: Path, launcher: Launcher, origin: Origin) -> Trial:
    """Launches one task and makes a trial of its ranks' records.

    Raises `UnwrittenError` where it may have failed because the disk is full: that is no result.
    """
    assignment = assign(plan, task, corpus)
    processes = 1 if task.purpose == "reference" or task.cell.layout is None else task.cell.layout.processes
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    prepare_folder(folder, assignment)
    memory = memory_group()
    try:
        outcome = launcher.launch(folder, processes=processes, deadline_s=assignment.deadline_s, nodes=assignment.nodes)
    finally:
        remove_caches(folder)
    ranks = read_ranks(folder, processes)
    status, reason = _out_of_memory_if_killed(find_cause(outcome, ranks), memory, memory_group())
    if status != "ok":
        _require_written(folder, outcome)
    return Trial(
        purpose=task.purpose,
        cell=task.name,
        key=task.key,
        round=task.round,
        repeat=task.repeat,
        environment=origin.environment,
        code=origin.code,
        started_at=started_at,
        wall_s=outcome.wall_s,
        status=status,
        reason=reason,
        log_tail="" if status == "ok" else log_tail(folder, processes),
        warnings=(*outcome.warnings, *warnings_of(ranks, mps=assignment.mps)),
        ranks=ranks,
    )


def _require_written(folder: Path, outcome: Outcome) -> None:
    require_room(folder)
    if EXIT_UNWRITTEN in outcome.exit_codes:
        rank = outcome.exit_codes.index(EXIT_UNWRITTEN)
        raise UnwrittenError(f"rank {rank} could not write its record and its log, which come to {folder}")


def _out_of_memory_if_killed(
    ending: tuple[Status, str | None], before: MemoryGroup, now: MemoryGroup
) -> tuple[Status, str | None]:
    """How a trial ended: `killed` becomes `out_of_memory` where the kernel has killed a process of the group for it."""
    status, reason = ending
    if status != "killed" or now.kills == before.kills:
        return ending
    peak = f" (the peak of its control group was {now.peak / 2**20:,.0f} MiB)" if now.peak else ""
    return "out_of_memory", f"{reason}: out of memory{peak}"


def assign(plan: Plan, task: Task, corpus: Corpus) -> Assignment:
    """The assignment of a task's ranks; a reference is computed by the reference strategy on one device.

    A reference takes its steps for each of its models one after another, so its deadline is as many times longer.
    """
    cell, measure_spec, devices_spec = task.cell, plan.scenario.measure, plan.scenario.devices
    is_reference, is_watched = task.purpose == "reference", task.purpose == "measure"
    is_timed = task.purpose in TIMED
    devices = Devices(kind=cell.devices.kind, count=1) if is_reference else cell.devices
    on_cpu = cell.devices.kind == "cpu"
    processes = 1 if is_reference or cell.layout is None else cell.layout.processes
    on_a_node = -(-processes // devices.nodes)
    beside_gpus = () if on_cpu else plan.machine.cores_of_gpu_ranks(devices.per_node, on_a_node)
    fewest_cores = min(map(len, beside_gpus), default=max(1, len(plan.machine.cores) // on_a_node))
    workload = task.workload or (without_compilation(cell.workload) if is_reference else cell.workload)
    options = {} if is_reference else cell.strategy.options.model_dump(mode="json", exclude_unset=True)
    return Assignment(
        purpose=task.purpose,
        cell=task.name,
        key=task.key,
        round=task.round,
        repeat=task.repeat,
        workload=workload.model_copy(update={"models": task.models}).model_dump(mode="json"),
        folder=str(plan.folder.resolve()),
        strategy=_reference_strategy() if is_reference else cell.strategy.name,
        options=options,
        device_kind=devices.kind,
        devices=devices.count,
        nodes=devices.nodes,
        threads=devices_spec.cores_per_device if on_cpu else fewest_cores,
        cores=plan.machine.shares(devices.per_node * on_cpu, devices_spec.cores_per_device),
        mps=not is_reference and cell.layout is not None and cell.layout.mps,
        rank_cores=tuple(map(cpus_of, beside_gpus)),
        gpus=plan.machine.gpus if not on_cpu and devices.per_node > plan.machine.gpus else None,
        corpus=corpus,
        seed=measure_spec.seed,
        warmup=measure_spec.warmup,
        window_s=measure_spec.window_s,
        validation_batches=measure_spec.validation_batches,
        deadline_s=measure_spec.deadline_s * (max(1, task.models) if is_reference else 1),
        verify_steps=measure_spec.verify_steps,
        steps=task.steps,
        quiet_steps=task.quiet_steps,
        validate_at=task.validate_at,
        twins=task.twins,
        matmul=None if is_timed else cell.workload.precision,
        malloc=measure_spec.malloc,
        account=is_watched and (measure_spec.account or measure_spec.trace),
        # What a cell holds is the same in every launch, so one of them tells.
        account_memory=is_watched and measure_spec.account and task.round == task.repeat == 0,
        trace=is_watched and measure_spec.trace,
        compile_cache=measure_spec.compile_cache if is_timed else "kept",
    )


def _reference_strategy() -> str:
    return next(name for name, strategy in STRATEGIES.classes().items() if strategy.reference)
