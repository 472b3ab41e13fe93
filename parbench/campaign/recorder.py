"""Makes a campaign's launches, keeps their trials, and knows what was launched before."""

from collections.abc import Collection, Set
from dataclasses import dataclass
from typing import NamedTuple

from parbench.campaign.progress import Progress
from parbench.campaign.tasks import Launch, Origin, Task, measure
from parbench.launch.base import Launcher
from parbench.plan.cells import Plan
from parbench.records.assignment import Twin
from parbench.records.corpus import Corpus
from parbench.records.trial import Status, Trial
from parbench.results.store import Store


class Taken(NamedTuple):
    """What of a trial decides on further launches: how it ended, and what its models went through."""

    status: Status
    models: int
    steps: frozenset[int]
    """How many steps its models took in all."""
    validated: frozenset[int]
    """After how many steps they were validated, where nothing was timed."""
    twins: frozenset[Twin]

    @classmethod
    def of(cls, trial: Trial) -> "Taken":
        """The summary of a trial."""
        jobs = [job for rank in trial.ranks for job in rank.jobs]
        return cls(
            status=trial.status,
            models=len({job.job for job in jobs}),
            steps=frozenset(job.total_steps for job in jobs),
            validated=frozenset(validation.steps for job in jobs for validation in job.validations),
            twins=frozenset(record.twin for rank in trial.ranks for record in rank.twins),
        )

    def covers(self, task: Task) -> bool:
        """Whether it need not be launched again: what is not timed may have to go further than it did."""
        if task.purpose == "measure" or self.status != "ok":
            return True
        far = max(self.steps, default=0) >= task.steps and self.validated >= set(task.validate_at)
        return far and self.twins >= set(task.twins) and (task.purpose == "proof" or self.models >= task.models)


@dataclass(kw_only=True)
class Recorder:
    """Takes tasks one at a time; each trial is on the disk before the next one starts.

    `taken` are earlier launches, `expected` those that the progress was told of.
    """

    plan: Plan
    store: Store
    launcher: Launcher
    origin: Origin
    corpora: dict[str, Corpus]
    progress: Progress
    taken: dict[Launch, Taken]
    expected: Set[Launch]

    def take(self, task: Task) -> Taken:
        """Launches a task, unless what was launched before covers it."""
        before = self.taken.get(task.launch)
        if before is not None and before.covers(task):
            return before
        if before is not None or task.launch not in self.expected:
            self.progress.total += 1
        self.progress.starts(task.cell.record, task.purpose, task.round)
        folder = self.store.folder / "trials" / task.folder_name
        corpus = self.corpora[task.cell.record.workload]
        trial = measure(self.plan, task, corpus, folder, self.launcher, self.origin)
        self.store.append(trial)
        self.taken[task.launch] = taken = Taken.of(trial)
        self.progress.ends(task.cell.record, trial)
        return taken

    def lengths(self, key: str) -> Collection[int]:
        """How many steps the models of a cell took in its timed trials that ended well."""
        timed = [self.taken.get(("measure", key, number)) for number in range(self.plan.scenario.measure.rounds)]
        return {steps for taken in timed if taken and taken.status == "ok" for steps in taken.steps}
