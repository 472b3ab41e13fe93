import math

import pytest

from parbench.records.assignment import Twin
from parbench.records.trial import GenerationRecord, JobRecord, Trial, TwinRecord, ValidationRecord
from parbench.results.deviations import (
    MISSING,
    compare,
    compare_sequences,
    differing_sequences,
    power,
    step_deviations,
    tolerances,
    validation_deviation,
)
from tests.support.records import cell, job, rank, reference, trial

STEPS = 20
COURSE = tuple(6 - 0.1 * step for step in range(STEPS))


def untimed(losses: tuple[float, ...], **changes) -> JobRecord:
    return job(losses=losses, warmup_steps=len(losses), steps=0, validation_loss=None, **changes)


def followed(losses: tuple[float, ...] = COURSE, *, twins: dict[str, tuple[float, ...]] | None = None, **changes):
    records = tuple(TwinRecord(twin=Twin(kind=kind), losses=each) for kind, each in (twins or {}).items())
    return reference(ranks=(rank(jobs=(untimed(losses, **changes),), twins=records),))


def timed(course: tuple[float, ...], **changes) -> Trial:
    values = {"losses": course, "warmup_steps": 5, "steps": len(course) - 5, **changes}
    return trial(ranks=(rank(jobs=(job(**values),)),))


def off_from(step: int, nats: float) -> tuple[float, ...]:
    """The reference's course, and another one from step number `step` on, which is counted from one."""
    return tuple(loss + nats * (number >= step) for number, loss in enumerate(COURSE, start=1))


def test_the_tolerance_grows_with_the_square_root_of_the_steps():
    allowed = tolerances(followed(), "fp32")
    assert allowed[:5] == [1e-5] * 5
    assert allowed[19] == pytest.approx(2e-5)
    assert tolerances(followed(), "bf16")[19] == pytest.approx(1e-2)


def test_where_rounding_grows_faster_it_is_ten_times_what_the_split_reference_deviates():
    split = tuple(loss + (3e-4 if number == 10 else 1e-4 * (number > 10)) for number, loss in enumerate(COURSE))
    allowed = tolerances(followed(twins={"split": split}), "fp32")
    assert allowed[9] == pytest.approx(1e-5 * math.sqrt(2)), "before it has grown"
    assert allowed[10] == pytest.approx(3e-3)
    assert allowed[19] == pytest.approx(3e-3), "what has drifted apart once does not come together by itself"


def test_where_one_rounding_decides_it_is_no_less_than_what_that_may_do():
    jobs = (untimed(COURSE),)
    allowed = tolerances(reference(ranks=(rank(jobs=jobs, rounding_jump=2e-3),)), "fp32")
    assert allowed[:5] == [2e-3] * 5
    assert allowed[19] == pytest.approx(4e-3)
    assert tolerances(reference(ranks=(rank(jobs=jobs, rounding_jump=1e-4),)), "bf16")[0] == 5e-3


@pytest.mark.parametrize(("step", "nats", "first"), [(1, 2e-5, 1), (16, 1e-3, 16), (16, 1.5e-5, None)])
def test_the_first_step_outside_of_its_tolerance_is_told(step, nats, first):
    deviation = compare(timed(off_from(step, nats)), followed(), "fp32")
    assert (deviation.first, deviation.steps) == (first, STEPS)
    assert deviation.nats == pytest.approx(nats)


def test_only_steps_that_both_have_are_compared():
    assert compare(timed(off_from(13, 1.0)[:12]), followed(), "fp32").steps == 12
    longer = timed(off_from(1, 0.0) + (9.0,) * 10)
    assert compare(longer, followed(), "fp32") == (0.0, 0.0, None, STEPS)


@pytest.mark.parametrize(
    "lacking",
    [
        timed(COURSE, losses=COURSE[:-1]),
        timed(COURSE, losses=()),
        trial(ranks=(rank(jobs=(job(1),)),)),
        trial(ranks=()),
    ],
    ids=["a loss", "all losses", "the model", "ranks"],
)
def test_what_lacks_a_loss_cannot_pass(lacking):
    assert compare(lacking, followed(), "fp32") == MISSING


def test_models_of_different_lengths_are_compared_as_far_as_each_went():
    both = (untimed(COURSE), untimed(COURSE).model_copy(update={"job": 1}))
    long, short = untimed(off_from(20, 0.5)), untimed(COURSE[:10]).model_copy(update={"job": 1})
    other = trial(ranks=(rank(jobs=(long, short)),))
    assert step_deviations(other, reference(ranks=(rank(jobs=both),)))[-2:] == pytest.approx([0.0, 0.5])


def test_validation_is_compared_after_equally_many_steps():
    validations = (ValidationRecord(steps=0, loss=6.0), ValidationRecord(steps=20, loss=5.0))
    same = followed(validations=validations)
    assert validation_deviation(timed(COURSE, validation_loss=5.0), same, "fp32").nats == 0.0
    other = validation_deviation(timed(COURSE, validation_loss=5.001), same, "fp32")
    assert (other.first, other.nats) == (20, pytest.approx(1e-3))
    assert validation_deviation(timed(COURSE[:15], validation_loss=5.0), same, "fp32") is None, "at another step"


def test_the_power_is_how_many_tolerances_a_mistake_deviates():
    idle = (*COURSE[:5], *(loss + 4e-4 for loss in COURSE[5:20]))
    assert power(followed(twins={"idle": idle}), "fp32", "idle", 2) == pytest.approx(4e-4 / (1e-5 * math.sqrt(6 / 5)))
    assert math.isnan(power(followed(), "fp32", "idle", 2))


def generated(steps: int, *sequences: str, shard: int = 0, closest: tuple[float, ...] = ()):
    record = GenerationRecord(sequences=sequences, closest_choices=closest)
    jobs = (job(losses=(), warmup_steps=steps, steps=0, generation=record),)
    return rank(shard, shard=shard, jobs=jobs)


def test_a_trial_that_took_fewer_steps_than_the_reference_has_fewer_sequences():
    whole = reference(cell(), ranks=(generated(3, "a", "b", "c", "d", "e", "f"),))
    assert differing_sequences(trial(ranks=(generated(2, "a", "b", "c", "d"),)), whole) == 0
    assert differing_sequences(trial(ranks=(generated(2, "a", "c"), generated(2, "b", "d", shard=1))), whole) == 0
    assert differing_sequences(trial(ranks=(generated(2, "a", "b", "e", "f"),)), whole) == 2, "those of a later step"
    assert differing_sequences(trial(ranks=(generated(9, "a", "b", "c", "d", "e", "f"),)), whole) == 0, "verified to 3"


def test_a_sequence_may_differ_where_rounding_decides_between_two_tokens():
    whole = reference(cell(), ranks=(generated(2, "a", "b", "c", "d", closest=(1.0, 1e-6, 0.5, 0.3)),))
    assert compare_sequences(trial(ranks=(generated(2, "a", "x", "c", "d"),)), whole) == (0, 1)
    assert compare_sequences(trial(ranks=(generated(2, "x", "b", "c", "d"),)), whole) == (1, 0)
    assert compare_sequences(trial(ranks=(generated(2, "x", "y", "c", "d"),)), whole) == (1, 1)
    assert compare_sequences(trial(ranks=(generated(2, "a", "b", "c", "d"),)), whole) == (0, 0)


def test_a_sequence_that_is_missing_has_no_excuse():
    whole = reference(cell(), ranks=(generated(2, "a", "b", closest=(1e-6, 1e-6)),))
    assert compare_sequences(trial(ranks=(generated(2, "a"),)), whole) == (1, 0)
    assert compare_sequences(trial(ranks=(generated(2),)), whole) == (2, 0)
