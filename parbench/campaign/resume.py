"""What a run that is gone on with need not launch again."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from parbench.campaign.recorder import Taken
from parbench.campaign.tasks import Launch
from parbench.errors import ResultsError
from parbench.records.run import RunRecord
from parbench.results.store import RUN_FILE, Run, read_run
from parbench.system.environment import Environment, differences


class Kept(NamedTuple):
    """What a resumed run has already, and sentences on what it cannot use."""

    taken: Mapping[Launch, Taken] = {}
    said: tuple[str, ...] = ()
    created_at: str | None = None


def kept_in(folder: Path, record: RunRecord, resume: bool) -> Kept:
    """What `folder` has already, by the same code in the same environment, whatever came of it.

    Raises `ResultsError` where a run is there that is not to be resumed, or cannot be with this data or launcher.
    """
    if not (folder / RUN_FILE).exists():
        return Kept()
    if not resume:
        raise ResultsError(f"{folder} holds a run already; go on with it by --resume, or choose another with --out")
    run = read_run(folder)
    if (name := run.record.scenario.get("name")) != record.scenario.get("name"):
        raise ResultsError(f"{folder} holds a run of scenario '{name}'; choose another folder with --out")
    if (before := run.record.launcher) != record.launcher:
        raise ResultsError(
            f"{folder} was measured with launcher {before}, and launchers do not cost the same; "
            f"go on with --launcher {before}, or start a new run with --out"
        )
    known = run.record.corpora
    changed = [name for name, corpus in record.corpora.items() if known.get(name, corpus).sha256 != corpus.sha256]
    if changed:
        raise ResultsError(
            f"the data of {', '.join(changed)} is not what {folder} was measured with; start a new run with --out"
        )
    now = Run(folder, record, run.trials, run.problems)
    taken = {(trial.purpose, trial.key, trial.round): Taken.of(trial) for trial in run.trials if now.counts(trial)}
    foreign = sum(not now.counts(trial) for trial in run.trials)
    said = [*run.problems]
    if foreign:
        said.append(f"{foreign} trials are not used, but measured anew: {_what_changed(run.record, record)}")
    planned = {(cell.key, number) for cell in record.cells for number in range(record.rounds)}
    if others := [launch for launch in taken if launch[0] == "measure" and launch[1:] not in planned]:
        said.append(f"{len(others)} trials are of what is not planned any more; they stay, unused")
    return Kept(taken, tuple(said), run.record.created_at)


def _what_changed(before: RunRecord, now: RunRecord) -> str:
    """Why trials of a run as it was do not count in the run as it is."""
    try:
        changed = differences(*(Environment.model_validate(each.environment) for each in (before, now)))
    except ValidationError:
        return "they were taken in an environment that this parbench does not know"
    told = [f"{field} was {old}, is {new}" for field, old, new in changed]
    told += ["the code that measures has changed"] * (before.code != now.code)
    return "; ".join(told) or "they are from another environment, or by other code"
