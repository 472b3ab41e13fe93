"""The one judge of a cell: its status, its parity, whether it is comparable, and what its ratios are over."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from parbench.figures.base import Launch
from parbench.figures.utilisation import peak_flops
from parbench.records.assignment import Purpose
from parbench.records.cell import CellRecord
from parbench.records.trial import Status, Trial
from parbench.results.parity import COMPARABLE, Evidence, Parity, judge
from parbench.results.store import Run

_SEVERITY: tuple[Status, ...] = ("out_of_memory", "killed", "timed_out", "failed")


@dataclass(frozen=True, kw_only=True)
class JudgedCell:
    """A cell of a run with its good timed trials, and what they and its evidence say of it.

    `reason` says why it was not measured well. `base` is the cell that its ratios are over: of the same workload and
    scaling, the first comparable reference on one device, which is its own base. It is None where there is no such
    reference, and where the cell itself is not comparable. `peak_flops` is one accelerator's peak in operations a
    second, where it is known.
    """

    record: CellRecord
    trials: tuple[Trial, ...]
    status: Status
    parity: Parity
    reason: str | None
    base: "JudgedCell | None" = None
    peak_flops: float | None = None

    @property
    def comparable(self) -> bool:
        """Whether no round of it failed, and nothing shows that it computes something else than it should."""
        return self.status == "ok" and self.parity.word in COMPARABLE

    @cached_property
    def launches(self) -> Mapping[int, Launch]:
        """Its launches by round, each with the base's launch of the same round."""
        bases = {trial.round: trial for trial in self.base.trials} if self.base else {}
        return {trial.round: self._launch(trial, bases.get(trial.round)) for trial in self.trials}

    def _launch(self, trial: Trial, base: Trial | None) -> Launch:
        of_base = Launch(base, self.base.record, peak_flops=self.peak_flops) if self.base and base else None
        return Launch(trial, self.record, of_base, self.peak_flops)


def judge_cells(run: Run) -> list[JudgedCell]:
    """Every cell of the run in the order of its plan, judged by the trials that count."""
    trials = counted_trials(run, "measure")
    references, proofs = newest_trials(run, "reference"), newest_trials(run, "proof")
    cap = run.record.scenario.get("measure", {}).get("verify_steps", math.inf)
    peak = _peak_flops(run.record.environment)
    cells = [
        _judged(cell, trials.get(cell.key, ()), Evidence.of(cell, references, proofs, cap), run.record.rounds, peak)
        for cell in run.record.cells
    ]
    bases: dict[tuple[str, str], JudgedCell] = {}
    for cell in cells:
        if cell.record.is_reference and cell.record.devices == 1 and cell.comparable:
            bases.setdefault(_family(cell), cell)
    return [replace(cell, base=bases.get(_family(cell))) if cell.comparable else cell for cell in cells]


def counted_trials(run: Run, purpose: Purpose) -> Mapping[str, list[Trial]]:
    """The trials of a purpose that count, in the order in which they were taken, by the key of their cell."""
    trials: defaultdict[str, list[Trial]] = defaultdict(list)
    for trial in run.trials:
        if trial.purpose == purpose and run.counts(trial):
            trials[trial.key].append(trial)
    return trials


def newest_trials(run: Run, purpose: Purpose) -> dict[str, Trial]:
    """Of the trials that are launched once, the newest by its key: one may have been launched again to go further."""
    return {key: trials[-1] for key, trials in counted_trials(run, purpose).items()}


def _judged(
    cell: CellRecord, trials: Sequence[Trial], evidence: Evidence, rounds: int, peak: float | None
) -> JudgedCell:
    status, reason = _status(cell, trials, rounds)
    good = tuple(trial for trial in trials if trial.status == "ok")
    parity = judge(cell, good, evidence)
    reasons = "; ".join(filter(None, (reason, parity.reason))) or None
    return JudgedCell(record=cell, trials=good, status=status, parity=parity, reason=reasons, peak_flops=peak)


def _status(cell: CellRecord, trials: Sequence[Trial], rounds: int) -> tuple[Status, str | None]:
    """The worst that befell the cell in any round, and its reason."""
    if cell.reason is not None:
        return "skipped", cell.reason
    for status in _SEVERITY:
        bad = [trial for trial in trials if trial.status == status]
        if bad:
            times = "" if len(bad) == len(trials) == rounds else f" ({len(bad)} of {rounds} rounds)"
            return status, f"{bad[0].reason or 'no reason was recorded'}{times}"
    if not trials:
        return "skipped", "not measured: the run was interrupted before it"
    return "ok", None if len(trials) >= rounds else f"only {len(trials)} of {rounds} rounds were measured"


def _family(cell: JudgedCell) -> tuple[str, str]:
    """Cells of one workload and scaling have one base."""
    return cell.record.workload, cell.record.scaling


def _peak_flops(environment: Mapping[str, Any]) -> float | None:
    """What one accelerator can do at most; None where there is none, they differ, or it is not known."""
    names = {gpu.get("name") for gpu in environment.get("speed", {}).get("accelerators", ())}
    return peak_flops(str(names.pop())) if len(names) == 1 else None
