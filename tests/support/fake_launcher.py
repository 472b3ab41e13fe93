"""A launcher that starts nothing and leaves plausible records, beside the real one that most tests use."""

import json
from pathlib import Path

from parbench.launch.base import Launcher, Outcome
from parbench.records.assignment import TIMED, Assignment
from parbench.records.trial import JobRecord, MemoryRecord, RankRecord, TwinRecord, ValidationRecord

WARMUP_STEPS, WINDOW_STEPS = 5, 10
LOSS, MISTAKEN_LOSS = 1.0, 2.0


class FakeLauncher(Launcher):
    """Every step takes a tenth of a second; the process is interrupted before launch number `interrupt_at`."""

    name = "fake"

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.launched: list[Assignment] = []
        self.interrupt_at = interrupt_at

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        if len(self.launched) == self.interrupt_at:
            raise KeyboardInterrupt
        assignment = Assignment.model_validate_json((folder / "cell.json").read_text())
        self.launched.append(assignment)
        models = assignment.workload["models"]
        trained = models if assignment.purpose == "reference" and isinstance(models, int) else 1
        job = timed_job(assignment) if assignment.purpose in TIMED else untimed_job(assignment)
        for rank in range(processes):
            record = RankRecord(
                rank=rank,
                host="fake",
                pid=1,
                stage="done",
                jobs=tuple(job.model_copy(update={"job": number}) for number in range(trained)),
                memory=MemoryRecord(resident_growth=1),
                twins=tuple(
                    TwinRecord(twin=twin, losses=(LOSS if twin.kind == "split" else MISTAKEN_LOSS,) * assignment.steps)
                    for twin in assignment.twins
                ),
                matmul_flops=1e15 if assignment.matmul else None,
            )
            (folder / f"rank{rank}.json").write_text(json.dumps(record.model_dump(mode="json")))
        return Outcome(exit_codes=(0,) * processes, wall_s=2.0)

    def close(self) -> None:
        pass


def timed_job(assignment: Assignment) -> JobRecord:
    return JobRecord(
        job=0,
        parameters=1,
        warmup_steps=WARMUP_STEPS,
        warmup_s=0.5,
        steady=True,
        losses=(LOSS,) * min(WARMUP_STEPS + WINDOW_STEPS, assignment.verify_steps),
        steps=WINDOW_STEPS,
        window_s=1.0,
        step_times_s=(0.1,) * WINDOW_STEPS,
        validation_loss=LOSS,
    )


def untimed_job(assignment: Assignment) -> JobRecord:
    return JobRecord(
        job=0,
        parameters=1,
        warmup_steps=assignment.steps,
        warmup_s=0.0,
        steady=True,
        losses=(LOSS,) * assignment.steps,
        validations=tuple(ValidationRecord(steps=at, loss=LOSS) for at in assignment.validate_at),
    )
