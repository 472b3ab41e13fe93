"""What a run that is gone on with need not launch again."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pydantic import ValidationError

from parbench.environment import Environment, differences
from parbench.errors import ResultsError
from parbench.results.store import RUN_FILE, Run, read_run
from parbench.results.trial import Purpose, RunRecord, Trial

Launch: TypeAlias = tuple[Purpose, str, int]
"""Its purpose, the key of what it measures, and its round."""


class Kept(NamedTuple):
    """What a resumed run need not launch again, and sentences on what it cannot use."""

    done: frozenset[Launch] = frozenset()
    said: tuple[str, ...] = ()
    created_at: str | None = None


def kept_in(folder: Path, record: RunRecord, planned: Mapping[Launch, int], resume: bool) -> Kept:
    """What `folder` has already of these launches, by the same code in the same environment, whatever came of them.

    Each is planned with a number of models, which tells whether a reference has enough of them.

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
    mine = {
        (trial.purpose, trial.key, trial.round)
        for trial in run.trials
        if now.counts(trial) and _covers(trial, planned.get((trial.purpose, trial.key, trial.round), 0))
    }
    foreign = sum(not now.counts(trial) for trial in run.trials)
    said = [*run.problems]
    if foreign:
        said.append(f"{foreign} trials are not used, but measured anew: {_what_changed(run.record, record)}")
    if others := mine - planned.keys():
        said.append(f"{len(others)} trials are of what is not planned any more; they stay, unused")
    return Kept(frozenset(mine & planned.keys()), tuple(said), run.record.created_at)


def _covers(trial: Trial, models: int) -> bool:
    """Whether a trial serves all cells: a reference may have trained fewer models than cells that came later do."""
    if trial.purpose != "reference" or trial.status != "ok":
        return True
    return len({job.job for rank in trial.ranks for job in rank.jobs}) >= models


def _what_changed(before: RunRecord, now: RunRecord) -> str:
    """Why trials of a run as it was do not count in the run as it is."""
    try:
        changed = differences(*(Environment.model_validate(each.environment) for each in (before, now)))
    except ValidationError:
        return "they were taken in an environment that this parbench does not know"
    told = [f"{field} was {old}, is {new}" for field, old, new in changed]
    told += ["the code that measures has changed"] * (before.code != now.code)
    return "; ".join(told) or "they are from another environment, or by other code"
