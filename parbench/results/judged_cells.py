"""The one judge of a cell: its status, its parity, whether it is comparable, and what its ratios are over."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from parbench.figures.base import UNEXPLAINED, Companions, Figure, Launch
from parbench.figures.peaks import peaks_of
from parbench.figures.statistics import RoundId
from parbench.figures.waterfall import Waterfall, waterfall_of
from parbench.records.assignment import Purpose
from parbench.records.cell import CellRecord, CompanionRecord
from parbench.records.trial import Status, Trial
from parbench.results.parity import COMPARABLE, Evidence, Parity, judge, worst_of
from parbench.results.store import Run

_SEVERITY: tuple[Status, ...] = ("out_of_memory", "killed", "timed_out", "failed")


@dataclass(frozen=True, kw_only=True)
class JudgedCell:
    """A cell of a run with its good timed trials by round, and what they and its evidence say of it.

    Rounds of several sessions stand beside each other; what is related within a round never spans two of them.

    `reason` says why it was not measured well. `base` is the cell that its ratios are over: of the same workload and
    scaling, the first comparable reference on one device, which is its own base. It is None where there is no such
    reference, and where the cell itself is not comparable. `peak_flops` is one accelerator's peak in operations a
    second by its data sheet, `matmul_flops` what matrix products in the cell's precision were measured to reach on one
    device; None where it is not known. `companions` are the good launches, by round, of what explains its speed.
    """

    record: CellRecord
    rounds: Mapping[RoundId, tuple[Trial, ...]]
    status: Status
    parity: Parity
    reason: str | None
    base: "JudgedCell | None" = None
    peak_flops: float | None = None
    matmul_flops: float | None = None
    companions: Mapping[RoundId, Companions] = field(default_factory=dict)

    @property
    def comparable(self) -> bool:
        """Whether no round of it failed, and nothing shows that it computes something else than it should."""
        return self.status == "ok" and self.parity.word in COMPARABLE

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Its good timed trials; a round has several of a base."""
        return tuple(trial for trials in self.rounds.values() for trial in trials)

    @cached_property
    def launches(self) -> tuple[Launch, ...]:
        """Its launches, each with the base's launches of the same round; one of the base itself is its own base."""
        is_base = self.base is not None and self.base.record == self.record
        return tuple(
            self._launch(trial, number, (trial,) if is_base else self._base_trials(number))
            for number, trials in self.rounds.items()
            for trial in trials
        )

    @cached_property
    def waterfall(self) -> Waterfall | None:
        """What it loses of its ideal speedup; None where it has none, or nothing tells."""
        return waterfall_of(self.launches)

    def values_by_round(self, figure: Figure) -> dict[RoundId, float]:
        """The figure's value in every round that has one; of a round's several launches, the geometric mean."""
        return figure.by_round(self.launches)

    def _base_trials(self, number: RoundId) -> tuple[Trial, ...]:
        return self.base.rounds.get(number, ()) if self.base else ()

    def _launch(self, trial: Trial, number: RoundId, base_trials: Sequence[Trial]) -> Launch:
        base = self.base.record if self.base else self.record
        launch = partial(Launch, peak_flops=self.peak_flops, session=number.session, matmul_flops=self.matmul_flops)
        bases = tuple(launch(each, base) for each in base_trials)
        return launch(trial, self.record, bases, companions=self.companions.get(number, UNEXPLAINED))


def judge_cells(run: Run) -> list[JudgedCell]:
    """Every cell of the run in the order of its plan, judged by the trials that count.

    Of several sessions, a cell has the rounds of all, and the worst that befell it in any.
    """
    names = [session.record.id for session in run.sessions]
    by_session = [_judged_alone(session, number) for number, session in enumerate(run.sessions)]
    cells = [_pooled(each, names) for each in zip(*by_session, strict=True)] if run.pooled else by_session[0]
    bases: dict[tuple[str, str], JudgedCell] = {}
    for cell in cells:
        if cell.record.can_be_base and cell.comparable:
            bases.setdefault(cell.record.base_group, cell)
    return [replace(cell, base=bases.get(cell.record.base_group)) if cell.comparable else cell for cell in cells]


def _judged_alone(run: Run, session: int) -> list[JudgedCell]:
    """The cells of one session, still without their bases."""
    trials, companions = counted_trials(run, "measure"), counted_trials(run, "companion")
    references, proofs = newest_trials(run, "reference"), newest_trials(run, "proof")
    cap = run.record.scenario.get("measure", {}).get("verify_steps", math.inf)
    peaks = _peaks(run.record.environment)
    cells = []
    for cell in run.record.cells:
        mine = trials.get(cell.key, ())
        status, reason = _status(cell, mine, run.record.rounds)
        good = tuple(trial for trial in mine if trial.status == "ok")
        parity = judge(cell, good, Evidence.of(cell, references, proofs, cap))
        cells.append(
            JudgedCell(
                record=cell,
                rounds=_by_round(good, session),
                status=status,
                parity=parity,
                reason="; ".join(filter(None, (reason, parity.reason))) or None,
                peak_flops=peaks.get(cell.precision) if cell.device_kind == "cuda" else None,
                matmul_flops=_matmul_flops(references.get(cell.reference)),
                companions=_companions(cell, (trials, companions), session),
            )
        )
    return cells


def _companions(
    cell: CellRecord, timed: Sequence[Mapping[str, Sequence[Trial]]], session: int
) -> Mapping[RoundId, Companions]:
    """The launches that explain a cell, whether they were launched for that or are those of another cell."""
    if cell.companions is None:
        return {}

    def launches(companion: CompanionRecord) -> Mapping[RoundId, tuple[Launch, ...]]:
        record = cell.model_copy(update={"global_batch": companion.global_batch})
        good = [trial for trials in timed for trial in trials.get(companion.key, ()) if trial.status == "ok"]
        return {
            number: tuple(Launch(trial, record, session=session) for trial in each)
            for number, each in _by_round(good, session).items()
        }

    alone, together = launches(cell.companions.alone), launches(cell.companions.together)
    return {number: Companions(alone.get(number, ()), together.get(number, ())) for number in {**alone, **together}}


def _pooled(cells: Sequence[JudgedCell], sessions: Sequence[str]) -> JudgedCell:
    """One cell in several sessions, which have these names."""
    reasons = [f"{name}: {cell.reason}" for name, cell in zip(sessions, cells, strict=True) if cell.reason]
    return replace(
        cells[0],
        rounds={number: trials for cell in cells for number, trials in cell.rounds.items()},
        companions={number: each for cell in cells for number, each in cell.companions.items()},
        status=max((cell.status for cell in cells), key=_severity),
        parity=worst_of([cell.parity for cell in cells]),
        matmul_flops=max(filter(None, (cell.matmul_flops for cell in cells)), default=None),
        # What a plan skips is skipped in all sessions for one reason.
        reason=cells[0].reason if len({cell.reason for cell in cells}) == 1 else "; ".join(reasons),
    )


def _severity(status: Status) -> int:
    """How bad a status is, from ok to out of memory."""
    return ("ok", "skipped", *reversed(_SEVERITY)).index(status)


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


def _by_round(trials: Sequence[Trial], session: int) -> Mapping[RoundId, tuple[Trial, ...]]:
    rounds: defaultdict[RoundId, list[Trial]] = defaultdict(list)
    for trial in trials:
        rounds[RoundId(session, trial.round)].append(trial)
    return {number: tuple(each) for number, each in rounds.items()}


def _status(cell: CellRecord, trials: Sequence[Trial], rounds: int) -> tuple[Status, str | None]:
    """The worst that befell the cell in any round, and its reason."""
    if cell.reason is not None:
        return "skipped", cell.reason
    measured = {trial.round for trial in trials}
    for status in _SEVERITY:
        bad = [trial for trial in trials if trial.status == status]
        if bad:
            in_rounds = len({trial.round for trial in bad})
            times = "" if len(bad) == len(trials) and in_rounds == rounds else f" ({in_rounds} of {rounds} rounds)"
            return status, f"{bad[0].reason or 'no reason was recorded'}{times}"
    if not trials:
        return "skipped", "not measured: the run was interrupted before it"
    return "ok", None if len(measured) >= rounds else f"only {len(measured)} of {rounds} rounds were measured"


def _matmul_flops(reference: Trial | None) -> float | None:
    """What matrix products in the cell's precision reached on one device, which its reference measures first."""
    ranks = reference.ranks if reference and reference.status == "ok" else ()
    return max((flops for rank in ranks if (flops := rank.matmul_flops)), default=None)


def _peaks(environment: Mapping[str, Any]) -> Mapping[str, float]:
    """What one accelerator can do at most, by precision; empty where there is none, they differ, or it is not known."""
    names = {gpu.get("name") for gpu in environment.get("speed", {}).get("accelerators", ())}
    return peaks_of(str(names.pop())) if len(names) == 1 else {}
