"""Launches a campaign's tasks and stores their trials, unless an earlier trial will do."""

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from parbench.campaign.progress import Progress
from parbench.campaign.tasks import Launch, Origin, Task, measure
from parbench.launch.base import Launcher
from parbench.plan.cells import Plan
from parbench.records.assignment import TIMED, Twin
from parbench.records.corpus import Corpus
from parbench.records.trial import Status, Trial
from parbench.results.store import Store


class Outline(NamedTuple):
    """What of an earlier trial decides whether its task has to be launched again."""

    status: Status
    models: int
    steps: frozenset[int]
    """The numbers of steps that its models took in all."""
    validated: frozenset[int]
    """The numbers of steps after which its models were validated, where nothing was timed."""
    twins: frozenset[Twin]

    @classmethod
    def of(cls, trial: Trial) -> "Outline":
        """The outline of a trial."""
        jobs = [job for rank in trial.ranks for job in rank.jobs]
        return cls(
            status=trial.status,
            models=len({job.job for job in jobs}),
            steps=frozenset(job.total_steps for job in jobs),
            validated=frozenset(validation.steps for job in jobs for validation in job.validations),
            twins=frozenset(record.twin for rank in trial.ranks for record in rank.twins),
        )

    def covers(self, task: Task) -> bool:
        """Whether the trial makes the task unnecessary. An untimed one does not where the task takes more steps."""
        if task.purpose in TIMED or self.status != "ok":
            return True
        is_long_enough = max(self.steps, default=0) >= task.steps and self.validated >= set(task.validate_at)
        return (
            is_long_enough and self.twins >= set(task.twins) and (task.purpose == "proof" or self.models >= task.models)
        )


@dataclass(kw_only=True)
class Recorder:
    """Launches tasks one at a time; each trial is on the disk before the next one starts.

    `outlines` are those of earlier trials, `expected` the launches that the progress counts already.
    """

    plan: Plan
    store: Store
    launcher: Launcher
    origin: Origin
    corpora: dict[str, Corpus]
    progress: Progress
    outlines: dict[Launch, Outline]
    expected: Set[Launch]

    def take(self, task: Task) -> Outline:
        """Launches a task, unless an earlier trial covers it."""
        earlier = self.outlines.get(task.launch)
        if earlier is not None and earlier.covers(task):
            return earlier
        if earlier is not None or task.launch not in self.expected:
            self.progress.add_trial()
        self.progress.start_trial(task.cell.record, task.purpose, task.round)
        folder = self.store.folder / "trials" / task.folder_name
        corpus = self.corpora[task.cell.record.workload]
        trial = measure(self.plan, task, corpus, folder, self.launcher, self.origin)
        self.store.append(trial)
        self.outlines[task.launch] = outline = Outline.of(trial)
        self.progress.end_trial(task.cell.record, trial)
        return outline

    def lengths(self) -> Mapping[str, Set[int]]:
        """The numbers of steps that each cell's models took in its successful timed trials, by the cell's key."""
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for launch, outline in self.outlines.items():
            if launch.purpose == "measure" and outline.status == "ok":
                lengths[launch.key] |= outline.steps
        return lengths
