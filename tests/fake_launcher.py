"""A launcher that starts nothing and leaves plausible records, beside the real one that most tests use."""

import json
from pathlib import Path

from parbench.launch.base import Launcher, Outcome
from parbench.results.trial import PARITY_STEPS, Assignment, JobRecord, MemoryRecord, RankRecord


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
        for rank in range(processes):
            job = JobRecord(
                job=0,
                parameters=1,
                warmup_steps=5,
                warmup_s=0.5,
                steady=True,
                losses=(1.0,) * PARITY_STEPS,
                steps=10,
                window_s=1.0,
                step_times_s=(0.1,) * 10,
                validation_loss=1.0,
            )
            record = RankRecord(
                rank=rank,
                host="fake",
                pid=1,
                stage="done",
                jobs=tuple(job.model_copy(update={"job": number}) for number in range(trained)),
                memory=MemoryRecord(resident_growth=1),
            )
            (folder / f"rank{rank}.json").write_text(json.dumps(record.model_dump(mode="json")))
        return Outcome(exit_codes=(0,) * processes, wall_s=2.0)

    def close(self) -> None:
        pass
