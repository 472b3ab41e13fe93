"""The memory that a plan's cells will take, predicted before anything is launched.

A process of its own predicts it, because taking steps on fake tensors replaces parts of torch.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping

from parbench.campaign.tasks import Task, assign
from parbench.plan.cells import Cell, Plan
from parbench.records.corpus import Corpus
from parbench.records.prediction import RehearsalAssignment, RehearsalRecord

COMMAND = (sys.executable, "-m", "parbench.measure.rehearsal.memory")


def predict_memory(plan: Plan) -> Mapping[str, RehearsalRecord]:
    """What comes of rehearsing each cell that can run, by its id: of its first and its last rank, who needs more."""
    rehearsals = [(cell.record.id, each) for cell in plan.runnable for each in _rehearsals(plan, cell)]
    best: dict[str, RehearsalRecord] = {}
    for (cell, _), record in zip(rehearsals, _rehearse([each for _, each in rehearsals]), strict=True):
        best[cell] = max(best.get(cell, record), record, key=_peak)
    return best


def _rehearsals(plan: Plan, cell: Cell) -> Iterator[RehearsalAssignment]:
    """The first rank and the last: stages of a pipeline differ, and those between have neither end of the model."""
    if cell.layout is None:
        return
    record = cell.record
    task = Task(purpose="measure", cell=cell, key=record.key, models=record.models)
    # Steps on fake tensors read no text.
    corpus = Corpus(path="", sha256="0" * 64, tokens=0, vocab_size=cell.workload.vocab_size, dtype="int32")
    assignment = assign(plan, task, corpus)
    for rank in sorted({0, cell.layout.processes - 1}):
        yield RehearsalAssignment(assignment=assignment, rank=rank)


def _rehearse(assignments: list[RehearsalAssignment]) -> list[RehearsalRecord]:
    """A record for each; where the process ends before its time, the rest say so."""
    lines = "".join(f"{each.model_dump_json()}\n" for each in assignments)
    ended = subprocess.run(  # noqa: S603 - our own module, by our own interpreter
        COMMAND, input=lines, capture_output=True, text=True, check=False
    )
    records = [RehearsalRecord.model_validate_json(line) for line in ended.stdout.splitlines()]
    last_words = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
    lost = RehearsalRecord(unavailable=f"the rehearsal ended with exit code {ended.returncode}: {last_words}")
    return records + [lost] * (len(assignments) - len(records))


def _peak(record: RehearsalRecord) -> int:
    return record.prediction.peak if record.prediction else -1
