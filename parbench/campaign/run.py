"""The campaign: rounds of fresh trials in shuffled order, each stored as soon as it has ended."""

import itertools
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from parbench.campaign.progress import Progress
from parbench.campaign.proving import expected_proofs, prove, verify
from parbench.campaign.recorder import Recorder
from parbench.campaign.resume import read_earlier
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
    """Measures every cell of `plan` in every round and returns the run as it is stored in `folder`.

    Raises `ResultsError` where `folder` cannot hold the run, `UsageError` where its data cannot be read. After an
    interruption, `resume` goes on with the trials that had ended before it.
    """
    require_open_files(most_ranks(plan))
    corpora, rounds = prepare_corpora(plan), shuffled_rounds(plan)
    with Store.locked(folder) as store, launcher.gathered(_campaign(plan, corpora)) as nodes:
        environment = launcher.environment(nodes)
        origin = Origin(environment.digest, code_of(plan))
        record = run_record(plan, folder, environment, corpora, command, origin.code)
        record = record.model_copy(update={"launcher": launcher.name, "nodes": nodes})
        earlier = read_earlier(folder, record, resume)
        store.begin(record.model_copy(update={"created_at": earlier.created_at or record.created_at}))
        expected = {task.launch for task in (*expected_proofs(plan), *rounds)}
        recorder = Recorder(
            plan=plan,
            store=store,
            launcher=launcher,
            origin=origin,
            corpora=corpora,
            progress=progress,
            outlines=dict(earlier.outlines),
            expected=expected,
        )
        already = len(expected & earlier.outlines.keys())
        with progress.campaign(len(expected) - already, already=already, notes=earlier.notes):
            prove(plan, recorder)
            for task in rounds:
                recorder.take(task)
            verify(plan, recorder)
    return read_run(folder)


def follow_campaign(plan: Plan, follower: Follower) -> None:
    """Takes part in a campaign that another node leads, with this node's own copies of scenario and data."""
    require_open_files(most_ranks(plan))
    follower.follow(_campaign(plan, prepare_corpora(plan)))


def prepare_corpora(plan: Plan) -> dict[str, Corpus]:
    """The token file of every workload's data. Raises `UsageError` where the data cannot be read."""
    seed = plan.scenario.measure.seed
    return {
        name: prepare(spec.data, seq_len=spec.seq_len, seed=seed, folder=plan.folder)
        for name, spec in plan.scenario.workloads.items()
    }


def most_ranks(plan: Plan) -> int:
    """The number of ranks of the largest trial."""
    cells = (*plan.runnable, *plan.companions)
    return max((cell.layout.processes for cell in cells if cell.layout), default=1)


def code_of(plan: Plan) -> str:
    """The digest of all code that measures this plan's cells."""
    strategies = [STRATEGIES[cell.strategy.name] for cell in plan.runnable]
    return sources_digest([*strategies, *(type(cell.workload.model) for cell in plan.runnable)])


def new_folder(results: Path, scenario: str) -> Path:
    """Makes a folder for a new run below `results`, named after the time and the scenario.

    Raises `ResultsError` where it cannot be made.
    """
    stem = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{folder_name(scenario)}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    with keeping(results):
        results.mkdir(parents=True, exist_ok=True)
        return next(results / name for name in names if _make_if_new(results / name))


def folder_name(name: str) -> str:
    """A scenario's name with dashes for all that need not be safe in a folder's name."""
    safe = "".join(character if character.isascii() and character.isalnum() else "-" for character in name)[:40]
    return safe.strip("-") or "scenario"


def _readable(text: str) -> str:
    """A file's name or an argument as text for a record; bytes that are not UTF-8 are replaced."""
    return os.fsencode(text).decode(errors="replace")


def _make_if_new(folder: Path) -> bool:
    """Makes a folder. Returns whether it is new, which it is for one only of several processes that try at once."""
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
    """The record of what a run is to measure, and in which environment."""
    return RunRecord(
        id=_readable(folder.resolve().name),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(map(_readable, command)),
        scenario=plan.scenario.resolved(),
        rounds=plan.scenario.measure.rounds,
        environment=environment.model_dump(mode="json"),
        environment_digest=environment.digest,
        code=code,
        # Without the cache's folder, which other machines have elsewhere: the hash in the name identifies the file.
        corpora={name: c.model_copy(update={"path": Path(c.path).name}) for name, c in corpora.items()},
        cells=tuple(cell.record for cell in plan.cells),
    )
