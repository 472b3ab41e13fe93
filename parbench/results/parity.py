"""Parity: whether a cell computed what the reference computes, in all steps that were timed, and how sure that is."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from parbench.figures import generation, losses, speed
from parbench.records.cell import CellRecord, ProofRecord
from parbench.records.trial import Trial
from parbench.results.deviations import (
    CLOSE_CHOICE,
    PARITY_TOLERANCE,
    TOKENS_MUST_AGREE,
    Deviation,
    compare,
    compare_sequences,
    differing_sequences,
    power,
    tolerances,
    twin_deviation,
    validation_deviation,
)

Word = Literal["reference", "ok", "inexact", "undecided", "failed"]

COMPARABLE: tuple[Word, ...] = ("reference", "ok", "inexact", "undecided")
"""Words of cells that are compared with others. An undecided cell is, too, and every place that shows it says so."""

_BADNESS: tuple[Word | None, ...] = ("reference", "ok", "inexact", "undecided", None, "failed")
"""All words from the best to the worst; None is a cell that was not checked."""

NEEDED_POWER = 10.0
"""How many tolerances a mistake must deviate to be told from rounding."""

INEXACT_SHARE = 1 / 3
"""The share of the reference's progress by which an inexact strategy's loss may differ after equally many steps."""

INEXACT_SPREAD = {"apart": 2.0, "half": 0.5}
"""How far an inexact strategy may deviate in its proof: twice as far as shards that are never synchronised do; where
there is only one shard, half as far as training on half of the batch does."""

MATMUL_SLACK = 1.25
"""A model that is this many times as fast as measured matrix products cannot have computed its steps. It is above 1
because that measurement is noisy."""

UNVERIFIED = "its timed steps have not been compared with the reference's yet: go on with --resume"
UNPROVEN = "its proof has not been computed yet: go on with --resume"


@dataclass(frozen=True)
class Evidence:
    """The untimed trials that belong to a cell, whatever came of them; None where one was not launched.

    `proofs` has each way to prove it, with the cell's own trial and the reference's; `capped` is the cell's at `cap`,
    the number of steps to which trials are verified.
    """

    reference: Trial | None
    proofs: tuple[tuple[ProofRecord, Trial | None, Trial | None], ...] = ()
    capped: Trial | None = None
    cap: float = math.inf

    @classmethod
    def of(
        cls, cell: CellRecord, references: Mapping[str, Trial], proofs: Mapping[str, Trial], cap: float
    ) -> "Evidence":
        """The evidence on a cell among the newest trials by their key."""
        ways = ((proof, proofs.get(proof.key), references.get(proof.reference)) for proof in cell.proofs or ())
        return cls(references.get(cell.reference), tuple(ways), proofs.get(cell.key), cap)

    @property
    def good_trials(self) -> Iterator[Trial]:
        """Those that ended well."""
        every = (self.reference, self.capped, *(trial for _, *both in self.proofs for trial in both))
        return (trial for trial in every if trial and trial.status == "ok")


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The gate's word and, where it is not a good one, why.

    With the largest deviation (nats per token) or the number of differing sequences; how many tolerances the least of
    the mistakes on purpose deviates; and how many steps of the timed trials were verified.
    """

    word: Word | None
    reason: str | None = None
    deviation: float = math.nan
    differing: float = math.nan
    power: float = math.nan
    verified_steps: float = math.nan


def judge(cell: CellRecord, trials: Sequence[Trial], evidence: Evidence) -> Parity:
    """What the good timed trials of a cell and its evidence say."""
    if not trials:
        return Parity(word=None)
    reference = evidence.reference
    if reference is None and cell.proofs is not None:
        return Parity(word="undecided", reason=UNVERIFIED)
    if reference is None or reference.status != "ok":
        return Parity(word=None, reason="parity was not checked: the reference could not be computed")
    judgement = _Judgement(cell, trials, evidence, reference)
    failure = next(judgement.failures(), None)
    doubt = None if failure else next(judgement.doubts(), None)
    reason = f"not comparable: {failure}" if failure else doubt and f"undecided: {doubt}"
    return Parity(
        word="failed" if failure else "undecided" if doubt else judgement.good_word,
        reason=reason or judgement.excuse,
        deviation=math.nan if cell.phase == "generate" else max(each.nats for each in judgement.timed),
        differing=judgement.differing,
        power=judgement.power,
        verified_steps=judgement.verified_steps,
    )


def worst_of(parities: Sequence[Parity]) -> Parity:
    """What several sessions say of one cell together: the worst word, the largest deviation, the least power."""

    def known(choose: Callable[[list[float]], float], values: Iterator[float]) -> float:
        numbers = [value for value in values if not math.isnan(value)]
        return choose(numbers) if numbers else math.nan

    return Parity(
        word=max((parity.word for parity in parities), key=_BADNESS.index),
        reason="; ".join(dict.fromkeys(parity.reason for parity in parities if parity.reason)) or None,
        deviation=known(max, (parity.deviation for parity in parities)),
        differing=known(max, (parity.differing for parity in parities)),
        power=known(min, (parity.power for parity in parities)),
        verified_steps=known(min, (parity.verified_steps for parity in parities)),
    )


class _Judgement:
    """The evidence on one cell: what shows that it is wrong, and what leaves it undecided."""

    def __init__(self, cell: CellRecord, trials: Sequence[Trial], evidence: Evidence, reference: Trial) -> None:
        self.cell, self.trials, self.evidence, self.reference = cell, trials, evidence, reference
        self.generates = cell.phase == "generate"
        self.timed = [] if self.generates else [compare(trial, reference, cell.precision) for trial in trials]
        sequences = [compare_sequences(trial, reference) for trial in trials] if self.generates else []
        self.differing = max((each.sequences for each in sequences), default=math.nan)
        self.excused = max((each.excused for each in sequences), default=0)
        ended = ((own, theirs) for _, own, theirs in evidence.proofs if own and theirs)
        self.proof = next(((own, theirs) for own, theirs in ended if own.status == theirs.status == "ok"), None)
        self.longest = max(steps for trial in trials for steps in speed.job_steps(trial).values())
        self.reach = min(speed.job_steps(reference).values())

    @property
    def good_word(self) -> Word:
        """The word for a cell that has neither failures nor doubts."""
        if not self.cell.exact or (self.generates and self.differing):
            return "inexact"
        return "reference" if self.cell.is_reference else "ok"

    @property
    def verified_steps(self) -> int:
        """How many steps of each timed trial were compared."""
        return min(self.longest, self.reach)

    @property
    def power(self) -> float:
        """The power of the proof or of the timed steps, whichever is smaller; NaN where neither was measured."""
        measured = [each for each in self._powers() if not math.isnan(each)]
        return min(measured, default=math.nan)

    @property
    def excuse(self) -> str | None:
        """What a good word passes over; None where that is nothing."""
        if not self.excused:
            return None
        return (
            f"{self.excused} sequences differ from the reference's, of which the two largest logits lie closer than "
            f"{CLOSE_CHOICE:g} at a token: rounding decides there"
        )

    def failures(self) -> Iterator[str]:
        """Sentences on what shows that it computed something else."""
        yield from self._impossible_speeds()
        if not self.cell.exact:
            yield from self._distance()
            yield from self._beyond_inexactness()
            return
        if self.generates:
            if self.differing and self.cell.precision in TOKENS_MUST_AGREE:
                yield f"{self.differing:.0f} generated sequences differ from the reference's"
        else:
            yield from _outside("losses differ", self.timed)
        pairs = [(trial, self.cell.precision) for trial in self._validated_trials()]
        checks = [validation_deviation(trial, self.reference, precision) for trial, precision in pairs]
        for check in filter(None, checks):
            if check.first:
                yield (
                    f"after {check.steps} steps the validation loss differs from the reference's by "
                    f"{check.nats:.2g} nats per token"
                )
        if self.proof and self.generates and differing_sequences(*self.proof):
            yield "in its proof, generated sequences differ from the reference's"
        elif self.proof and not self.generates:
            yield from _outside("in its proof (fp32, SGD) losses differ", [compare(*self.proof, "fp32")])

    def doubts(self) -> Iterator[str]:
        """Sentences on what is not known yet, or cannot be told from rounding."""
        if self.cell.proofs is None:  # from before there were proofs
            return
        if self.verified_steps < min(self.longest, self.evidence.cap):
            yield UNVERIFIED
        if self.cell.phase == "train":
            yield from self._unvalidated()
        yield from self._unproven()
        if not self.cell.exact:
            yield from self._aimless()
            return
        if self.generates and len(sequences := generation.job_sequences(self.reference).get(0, [])) > 1:
            if len(set(sequences)) == 1:
                yield "all prompts have the same continuation, so that mixing them up would not show"
        elif not self.generates and self._is_no_plain_reference() and not self.power >= NEEDED_POWER:
            size = "nothing" if math.isnan(self.power) else f"{self.power:.2g} tolerances"
            yield (
                f"a mistake on purpose deviates by {size} only, and {NEEDED_POWER:g} are needed to tell it from "
                "rounding: a higher learning rate or a longer window would"
            )

    def _is_no_plain_reference(self) -> bool:
        """The reference strategy without options is compared with itself: there is no mistake to tell from rounding."""
        return not (self.cell.is_reference and self.cell.label == self.cell.strategy)

    def _powers(self) -> Iterator[float]:
        if self.proof:
            yield power(self.proof[1], "fp32", *self._wrong_twin)
        yield power(self.reference, self.cell.precision, "idle" if self.cell.phase == "train" else "half", 2)

    def _impossible_speeds(self) -> Iterator[str]:
        measured = [rank.matmul_flops for trial in self.evidence.good_trials for rank in trial.ranks]
        peak = max((flops for flops in measured if flops), default=math.inf)
        if self.cell.flops_per_token is None or self.generates:
            return
        fastest = max(speed.tokens_per_s(trial, self.cell) for trial in self.trials)
        flops = fastest * self.cell.flops_per_token / self.cell.devices
        if flops > MATMUL_SLACK * peak:
            yield (
                f"its model would have needed {flops:.3g} FLOP/s a device, and matrix products reach {peak:.3g} here: "
                "it cannot have computed its steps"
            )

    def _validated_trials(self) -> list[Trial]:
        """Those whose validation loss can be compared: of one that went beyond the cap, the launch up to there."""
        capped = self.evidence.capped
        return [*self.trials, *([capped] if capped and capped.status == "ok" else [])]

    def _unvalidated(self) -> Iterator[str]:
        validated = losses.job_validations(self.reference).get(0, {})
        reached = {steps for trial in self.trials for steps in speed.job_steps(trial).values()}
        if not all(losses.job_validations(trial).keys() == speed.job_steps(trial).keys() for trial in self.trials):
            yield "it has no validation loss that could be compared"
        if any(min(steps, self.evidence.cap) not in validated for steps in reached):
            yield UNVERIFIED
        elif max(reached) > self.evidence.cap:
            capped = self.evidence.capped
            if capped is None:
                yield UNVERIFIED
            elif capped.status != "ok":
                yield f"it could not be validated after {self.evidence.cap} steps: {capped.reason}"

    def _unproven(self) -> Iterator[str]:
        if self.proof:
            return
        if not self.evidence.proofs:
            if self.cell.phase == "train" or (self.cell.exact and self.cell.precision != "fp32"):
                yield "it cannot be laid out in fp32 with SGD, in which it would be proven"
            return
        ended = [trial for _, *both in self.evidence.proofs for trial in both if trial and trial.status != "ok"]
        yield f"its proof failed: {ended[-1].reason}" if ended else UNPROVEN

    def _distance(self) -> Iterator[str]:
        """An inexact strategy must have learned about as much as the reference."""
        for steps, loss, expected, progress in self._progress():
            if abs(loss - expected) > INEXACT_SHARE * abs(progress):
                yield (
                    f"after {steps} steps the validation loss is {loss:.4g} nats per token and the reference's "
                    f"{expected:.4g}, which is more than {INEXACT_SHARE:.0%} of what that has learned"
                )

    def _beyond_inexactness(self) -> Iterator[str]:
        """In its proof it may not deviate further than what an inexact strategy does by its nature."""
        if not self.proof:
            return
        own, theirs = self.proof
        deviation = compare(own, theirs, "fp32")
        kind, parts = self._wrong_twin
        reach = INEXACT_SPREAD[kind] * twin_deviation(theirs, kind, parts)
        if deviation.nats > max(reach, PARITY_TOLERANCE["bf16"]):
            yield (
                f"in its proof (fp32, SGD) losses differ from the reference by {deviation.nats:.2g} nats per token, "
                f"and {reach:.2g} are what an inexact strategy may"
            )
        for shared in losses.job_shared_losses(own).values():
            if max(shared) - min(shared) > PARITY_TOLERANCE["fp32"]:
                yield (
                    "its replicas are not one model: the loss of the same batch lies between "
                    f"{min(shared):.6g} and {max(shared):.6g}"
                )

    @property
    def _wrong_twin(self) -> tuple[str, int]:
        """The mistake on purpose, with its parts, that is likeliest for a cell with so many data shards."""
        return ("apart", self.cell.data_shards) if self.cell.data_shards > 1 else ("half", 2)

    def _aimless(self) -> Iterator[str]:
        allowed = tolerances(self.reference, self.cell.precision)
        for steps, _, _, progress in self._progress():
            if abs(progress) < NEEDED_POWER * allowed[steps - 1]:
                yield f"in {steps} steps the reference learns too little to tell whether this learns as much"

    def _progress(self) -> Iterator[tuple[int, float, float, float]]:
        """Of every validated model: after how many steps, its loss, the reference's, and what that has learned."""
        expected = losses.job_validations(self.reference)
        for trial in self._validated_trials():
            for job, by_steps in losses.job_validations(trial).items():
                theirs = expected.get(job, {})
                for steps, loss in by_steps.items():
                    if steps in theirs and 0 in theirs and steps:
                        yield steps, loss, theirs[steps], theirs[0] - theirs[steps]


def _outside(what: str, deviations: Sequence[Deviation]) -> Iterator[str]:
    worst = max(deviations, key=lambda each: each.excess)
    if worst.first:
        nats = f"{worst.nats:.2g}" if math.isfinite(worst.nats) else "an unknown number of"
        yield f"{what} from the reference by {nats} nats per token, first in step {worst.first}"
