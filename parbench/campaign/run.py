"""The campaign: rounds of fresh trials in shuffled order, each kept as soon as it has ended. Reads like the plot."""

import itertools
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from parbench.campaign.progress import Progress
from parbench.campaign.proving import expected_proofs, prove, verify
from parbench.campaign.recorder import Recorder
from parbench.campaign.resume import kept_in
from parbench.campaign.tasks import Origin, shuffled_rounds
from parbench.data.corpus import prepare
from parbench.launch.base import Campaign, Follower, Launcher
from parbench.launch.code_digest import sources_digest
from parbench.launch.open_files import require_open_files
from parbench.plan.cells import Plan
from parbench.records.corpus import Corpus
from parbench.records.run import RunRecord
from parbench.results.store import Run, Store, read_run
from parbench.strategies.base import STRATEGIES
from parbench.system.environment import Environment
from parbench.system.files import keeping


def run_campaign(
    plan: Plan, folder: Path, launcher: Launcher, progress: Progress, *, command: Sequence[str], resume: bool = False
) -> Run:
    """Measures every cell of `plan` in every round and returns the run as it stands in `folder`.

    Raises `ResultsError` where `folder` cannot take it, `UsageError` where its data cannot be had. An interruption
    passes through; every trial that ended before it is kept, and `resume` goes on from there.
    """
    require_open_files(most_ranks(plan))
    corpora, rounds = prepare_corpora(plan), shuffled_rounds(plan)
    with Store.locked(folder) as store, launcher.gathered(_campaign(plan, corpora)) as nodes:
        environment = launcher.environment(nodes)
        origin = Origin(environment.digest, code_of(plan))
        record = run_record(plan, folder, environment, corpora, command, origin.code)
        record = record.model_copy(update={"launcher": launcher.name, "nodes": nodes})
        kept = kept_in(folder, record, resume)
        store.begin(record.model_copy(update={"created_at": kept.created_at or record.created_at}))
        expected = {task.launch for task in (*expected_proofs(plan), *rounds)}
        recorder = Recorder(
            plan=plan,
            store=store,
            launcher=launcher,
            origin=origin,
            corpora=corpora,
            progress=progress,
            taken=dict(kept.taken),
            expected=expected,
        )
        done = len(expected & kept.taken.keys())
        with progress.campaign(len(expected) - done, already=done, said=kept.said):
            prove(plan, recorder)
            for task in rounds:
                recorder.take(task)
            verify(plan, recorder)
    return read_run(folder)


def follow_campaign(plan: Plan, follower: Follower) -> None:
    """Takes part in a campaign that another node leads, with this node's own copy of scenario and data."""
    require_open_files(most_ranks(plan))
    follower.follow(_campaign(plan, prepare_corpora(plan)))


def prepare_corpora(plan: Plan) -> dict[str, Corpus]:
    """The data of every workload, read once. Raises `UsageError` where it cannot be had."""
    seed = plan.scenario.measure.seed
    return {
        name: prepare(spec.data, seq_len=spec.seq_len, seed=seed, folder=plan.folder)
        for name, spec in plan.scenario.workloads.items()
    }


def most_ranks(plan: Plan) -> int:
    """How many ranks the largest trial has."""
    return max((cell.layout.processes for cell in plan.runnable if cell.layout), default=1)


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
