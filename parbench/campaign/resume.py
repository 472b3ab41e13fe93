"""Resuming a run: which of its trials count, and what is said about the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from parbench.campaign.recorder import Outline
from parbench.campaign.tasks import Launch
from parbench.errors import ResultsError
from parbench.records.assignment import TIMED
from parbench.records.run import RunRecord
from parbench.results.store import RUN_FILE, Run, read_run
from parbench.system.environment import Environment, differences


class Earlier(NamedTuple):
    """The outlines of a run's usable trials, sentences on what cannot be used, and when the run was begun."""

    outlines: Mapping[Launch, Outline] = {}
    notes: tuple[str, ...] = ()
    created_at: str | None = None


def read_earlier(folder: Path, record: RunRecord, resume: bool) -> Earlier:
    """The trials in `folder` that the same code took in the same environment, also those that failed.

    Raises `ResultsError` where there is a run that is not to be resumed, or was measured with other data or another
    launcher.
    """
    if not (folder / RUN_FILE).exists():
        return Earlier()
    if not resume:
        raise ResultsError(f"{folder} holds a run already; go on with it by --resume, or choose another with --out")
    run = read_run(folder)
    if (name := run.record.scenario.get("name")) != record.scenario.get("name"):
        raise ResultsError(f"{folder} holds a run of scenario '{name}'; choose another folder with --out")
    if (launcher := run.record.launcher) != record.launcher:
        raise ResultsError(
            f"{folder} was measured with launcher {launcher}, and launchers do not cost the same; "
            f"go on with --launcher {launcher}, or start a new run with --out"
        )
    before = run.record.corpora
    changed = [name for name, corpus in record.corpora.items() if before.get(name, corpus).sha256 != corpus.sha256]
    if changed:
        raise ResultsError(
            f"the data of {', '.join(changed)} is not what {folder} was measured with; start a new run with --out"
        )
    resumed = Run(folder, record, run.trials, run.problems)
    outlines = {
        Launch(trial.purpose, trial.key, trial.round, trial.repeat): Outline.of(trial)
        for trial in run.trials
        if resumed.counts(trial)
    }
    notes = [*run.problems]
    if foreign := sum(not resumed.counts(trial) for trial in run.trials):
        notes.append(f"{foreign} trials are not used, but measured anew: {_changes(run.record, record)}")
    planned = {key for cell in record.cells for key in cell.timed_keys}
    timed = [launch for launch in outlines if launch.purpose in TIMED]
    if unplanned := [launch for launch in timed if launch.key not in planned or launch.round >= record.rounds]:
        notes.append(f"{len(unplanned)} trials are of cells that are not planned any more; they stay, unused")
    return Earlier(outlines, tuple(notes), run.record.created_at)


def _changes(before: RunRecord, now: RunRecord) -> str:
    """What has changed since a run was begun, so that its trials do not count any more."""
    try:
        changed = differences(*(Environment.model_validate(each.environment) for each in (before, now)))
    except ValidationError:
        return "they were taken in an environment that this parbench does not know"
    reasons = [f"{field} was {old}, is {new}" for field, old, new in changed]
    reasons += ["the code that measures has changed"] * (before.code != now.code)
    return "; ".join(reasons) or "they are from another environment, or by other code"
