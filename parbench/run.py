"""The campaign: rounds of fresh trials in shuffled order, each kept as soon as it has ended. Reads like the plot."""

import itertools
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from parbench.cells import Cell, Plan, plainly
from parbench.cgroups import MemoryGroup, memory_group
from parbench.devices import Devices
from parbench.environment import Environment
from parbench.errors import UnwrittenError
from parbench.launch.base import Campaign, Follower, Launcher, Outcome, log_tail, prepare_folder, read_ranks, verdict
from parbench.measure.journal import EXIT_UNWRITTEN
from parbench.progress import Progress
from parbench.results.disturbance import warnings_of
from parbench.results.files import keeping, require_room
from parbench.results.store import Run, Store, read_run
from parbench.results.trial import Assignment, Purpose, RunRecord, Status, Trial
from parbench.resume import kept_in
from parbench.sources import sources_digest
from parbench.strategies.base import STRATEGIES
from parbench.workloads.corpus import Corpus, prepare


@dataclass(frozen=True, kw_only=True)
class Task:
    """One launch that a campaign has to make."""

    purpose: Purpose
    cell: Cell
    key: str
    round: int
    models: int

    @property
    def name(self) -> str:
        """The cell's id; a reference belongs to all cells of its workload."""
        return self.cell.record.id if self.purpose == "measure" else f"{self.cell.record.workload}/reference"

    @property
    def folder_name(self) -> str:
        """Where the trial's files lie in the run's folder; made of numbers and hashes only."""
        return f"r{self.round:03d}-{self.key}" if self.purpose == "measure" else f"reference-{self.key}"


class Origin(NamedTuple):
    """What trials must share to be compared: the digests of the environment and of the code that measures."""

    environment: str
    code: str = ""


def run_campaign(
    plan: Plan, folder: Path, launcher: Launcher, progress: Progress, *, command: Sequence[str], resume: bool = False
) -> Run:
    """Measures every cell of `plan` in every round and returns the run as it stands in `folder`.

    Raises `ResultsError` where `folder` cannot take it, `UsageError` where its data cannot be had. An interruption
    passes through; every trial that ended before it is kept, and `resume` goes on from there.
    """
    corpora, every = prepare_corpora(plan), schedule(plan)
    with Store.locked(folder) as store, launcher.gathered(_campaign(plan, corpora)) as nodes:
        environment = launcher.environment(nodes)
        origin = Origin(environment.digest, code_of(plan))
        record = run_record(plan, folder, environment, corpora, command, origin.code)
        record = record.model_copy(update={"launcher": launcher.name, "nodes": nodes})
        kept = kept_in(folder, record, {(task.purpose, task.key, task.round): task.models for task in every}, resume)
        store.begin(record.model_copy(update={"created_at": kept.created_at or record.created_at}))
        tasks = [task for task in every if (task.purpose, task.key, task.round) not in kept.done]
        with progress.campaign(len(tasks), already=len(kept.done), said=kept.said):
            for task in tasks:
                progress.starts(task.cell.record, task.purpose, task.round)
                corpus = corpora[task.cell.record.workload]
                trial = measure(plan, task, corpus, folder / "trials" / task.folder_name, launcher, origin)
                store.append(trial)
                progress.ends(task.cell.record, trial)
    return read_run(folder)


def follow_campaign(plan: Plan, follower: Follower) -> None:
    """Takes part in a campaign that another node leads, with this node's own copy of scenario and data."""
    follower.follow(_campaign(plan, prepare_corpora(plan)))


def prepare_corpora(plan: Plan) -> dict[str, Corpus]:
    """The data of every workload, read once. Raises `UsageError` where it cannot be had."""
    seed = plan.scenario.measure.seed
    return {
        name: prepare(spec.data, seq_len=spec.seq_len, seed=seed, folder=plan.folder)
        for name, spec in plan.scenario.workloads.items()
    }


def schedule(plan: Plan) -> list[Task]:
    """The references first, then round after round, each with all cells in an order of its own."""
    order = random.Random(plan.scenario.measure.seed)  # noqa: S311 - a shuffle, not a secret
    tasks = _references(plan)
    for number in range(plan.scenario.measure.rounds):
        cells = plan.runnable
        order.shuffle(cells)
        tasks += [
            Task(purpose="measure", cell=cell, key=cell.record.key, round=number, models=cell.record.models)
            for cell in cells
        ]
    return tasks


def measure(plan: Plan, task: Task, corpus: Corpus, folder: Path, launcher: Launcher, origin: Origin) -> Trial:
    """Launches one task and makes a trial of what it left.

    Raises `UnwrittenError` where it may have failed because nothing could be written: that is no result.
    """
    assignment = assign(plan, task, corpus)
    processes = 1 if task.purpose == "reference" or task.cell.layout is None else task.cell.layout.processes
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    prepare_folder(folder, assignment)
    memory = memory_group()
    outcome = launcher.launch(folder, processes=processes, deadline_s=assignment.deadline_s, nodes=assignment.nodes)
    ranks = read_ranks(folder, processes)
    status, reason = _of_memory(verdict(outcome, ranks), memory, memory_group())
    if status != "ok":
        _require_written(folder, outcome)
    return Trial(
        purpose=task.purpose,
        cell=task.name,
        key=task.key,
        round=task.round,
        environment=origin.environment,
        code=origin.code,
        started_at=started_at,
        wall_s=outcome.wall_s,
        status=status,
        reason=reason,
        log_tail="" if status == "ok" else log_tail(folder, processes),
        warnings=warnings_of(ranks),
        ranks=ranks,
    )


def _require_written(folder: Path, outcome: Outcome) -> None:
    require_room(folder)
    if EXIT_UNWRITTEN in outcome.exit_codes:
        rank = outcome.exit_codes.index(EXIT_UNWRITTEN)
        raise UnwrittenError(f"rank {rank} could not write its record and its log, which come to {folder}")


def _of_memory(found: tuple[Status, str | None], before: MemoryGroup, now: MemoryGroup) -> tuple[Status, str | None]:
    """What was found of a trial; a rank that was killed while the kernel killed for want of memory lacked that."""
    status, reason = found
    if status != "killed" or now.kills == before.kills:
        return found
    peak = f" (the peak of its control group was {now.peak / 2**20:,.0f} MiB)" if now.peak else ""
    return "out_of_memory", f"{reason}: out of memory{peak}"


def assign(plan: Plan, task: Task, corpus: Corpus) -> Assignment:
    """What the ranks of a task are told; a reference is the reference strategy on one device."""
    cell, measure_spec, devices_spec = task.cell, plan.scenario.measure, plan.scenario.devices
    reference = task.purpose == "reference"
    devices = Devices(kind=cell.devices.kind, count=1) if reference else cell.devices
    on_cpu = cell.devices.kind == "cpu"
    workload = plainly(cell.workload) if reference else cell.workload
    options = {} if reference else cell.strategy.options.model_dump(mode="json", exclude_unset=True)
    return Assignment(
        purpose=task.purpose,
        cell=task.name,
        key=task.key,
        round=task.round,
        workload=workload.model_copy(update={"models": task.models}).model_dump(mode="json"),
        folder=str(plan.folder.resolve()),
        strategy=_reference_strategy() if reference else cell.strategy.name,
        options=options,
        device_kind=devices.kind,
        devices=devices.count,
        nodes=devices.nodes,
        threads=devices_spec.cores_per_device if on_cpu else max(1, len(plan.machine.cores) // devices.per_node),
        cores=plan.machine.shares(devices.per_node * on_cpu, devices_spec.cores_per_device),
        corpus=corpus,
        seed=measure_spec.seed,
        warmup=measure_spec.warmup,
        window_s=measure_spec.window_s,
        validation_batches=measure_spec.validation_batches,
        deadline_s=measure_spec.deadline_s,
    )


def code_of(plan: Plan) -> str:
    """The digest of all code that measures this plan's cells."""
    strategies = [STRATEGIES[cell.strategy.name] for cell in plan.runnable]
    return sources_digest([*strategies, *(type(cell.workload.model) for cell in plan.runnable)])


def new_folder(results: Path, name: str) -> Path:
    """Makes a folder for a new run below `results`, named after the time and the scenario.

    Raises `ResultsError` where it cannot be made.
    """
    stem = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{folder_name(name)}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    with keeping(results):
        results.mkdir(parents=True, exist_ok=True)
        return next(results / each for each in names if _is_new(results / each))


def folder_name(name: str) -> str:
    """A scenario's name as that of a folder."""
    safe = "".join(character if character.isascii() and character.isalnum() else "-" for character in name)[:40]
    return safe.strip("-") or "scenario"


def _readable(text: str) -> str:
    """A name or an argument that need not be UTF-8, as a record can hold it."""
    return os.fsencode(text).decode(errors="replace")


def _is_new(folder: Path) -> bool:
    """Makes a folder; of several processes that try at once only one is told that it is new."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _references(plan: Plan) -> list[Task]:
    """One for each workload and global batch, with as many models as any cell of it trains."""
    tasks: dict[str, Task] = {}
    for cell in plan.runnable:
        key, known = cell.record.reference, tasks.get(cell.record.reference)
        models = max(cell.record.models, known.models if known else 0)
        tasks[key] = Task(purpose="reference", cell=cell, key=key, round=0, models=models)
    return list(tasks.values())


def _reference_strategy() -> str:
    return next(name for name, strategy in STRATEGIES.classes().items() if strategy.reference)


def _campaign(plan: Plan, corpora: dict[str, Corpus]) -> Campaign:
    return Campaign(
        scenario=plan.scenario.resolved(),
        folder=plan.folder,
        corpora=corpora,
        machine=plan.machine,
        code=code_of(plan),
    )


def run_record(
    plan: Plan,
    folder: Path,
    environment: Environment,
    corpora: dict[str, Corpus],
    command: Sequence[str],
    code: str = "",
) -> RunRecord:
    """What a run sets out to do, and where."""
    return RunRecord(
        id=_readable(folder.resolve().name),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(map(_readable, command)),
        scenario=plan.scenario.resolved(),
        rounds=plan.scenario.measure.rounds,
        environment=environment.model_dump(mode="json"),
        environment_digest=environment.digest,
        code=code,
        # The cache is this machine's own affair; the hash in the name finds the file in any.
        corpora={name: c.model_copy(update={"path": Path(c.path).name}) for name, c in corpora.items()},
        cells=tuple(cell.record for cell in plan.cells),
    )
