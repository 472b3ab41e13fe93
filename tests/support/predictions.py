"""`python -m tests.support.predictions SCENARIO OUT`: the memory of ranks of every cell, on eight cores.

A process of its own, because a rehearsal replaces parts of torch while it lasts.
"""

import json
import sys
from pathlib import Path

from parbench.campaign.tasks import Task, assign
from parbench.measure.rehearsal.memory import predict_memory
from parbench.plan.cells import Cell, Plan
from parbench.plan.reading import read_plan
from parbench.records.corpus import Corpus
from parbench.records.prediction import MemoryPrediction
from parbench.system.devices import Machine

CORES = Machine(cores=tuple((core,) for core in range(8)))


def predict(plan: Plan, cell: Cell, rank: int) -> MemoryPrediction:
    """What a rank of the cell would need; no text is read."""
    task = Task(purpose="measure", cell=cell, key=cell.record.key, models=cell.record.models)
    corpus = Corpus(path="none", sha256="0" * 64, tokens=10_000, vocab_size=cell.workload.vocab_size, dtype="int32")
    return predict_memory(assign(plan, task, corpus), rank)


def main(scenario: Path, out: Path) -> None:
    """Writes the predictions of the first and the last rank of each cell, or what they raised."""
    plan = read_plan(scenario, CORES)
    predictions = {}
    for cell in plan.runnable:
        ranks = sorted({0, cell.layout.processes - 1}) if cell.layout else []
        try:
            predictions[cell.record.id] = [predict(plan, cell, rank).model_dump() for rank in ranks]
        except Exception as error:  # noqa: BLE001 - whatever a cell raises is its result
            predictions[cell.record.id] = f"{type(error).__name__}: {error}"
    out.write_text(json.dumps(predictions))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
