"""What the parity gate says, by the evidence that it has."""

import math

import pytest

from parbench.records.assignment import Twin
from parbench.records.cell import CellRecord, ProofRecord
from parbench.records.trial import Trial, TwinRecord, ValidationRecord
from parbench.results.parity import Evidence, Parity, judge
from tests.support.records import cell, job, rank, reference, trial

STEPS = 20
COURSE = tuple(6 - 0.1 * step for step in range(STEPS))
PROOF = ProofRecord(global_batch=8, key="proof", reference="proof reference")
AT_START, AT_END = 6.0, 4.0
"""The reference's validation losses."""


def judged(**changes) -> CellRecord:
    return cell("ddp", 2, **{"proofs": (PROOF,), "data_shards": 2, **changes})


def timed(of: CellRecord, losses=COURSE, *, validation_loss: float | None = AT_END, window_s: float = 2.0) -> Trial:
    steps = job(
        losses=losses,
        warmup_steps=5,
        steps=STEPS - 5,
        window_s=window_s,
        step_times_s=(0.1,),
        validation_loss=validation_loss,
    )
    return trial(of, ranks=(rank(jobs=(steps,)),))


def untimed(losses=COURSE, *, twins=(), at=(), shared_losses=(None,), status="ok", **changes) -> Trial:
    steps = job(losses=losses, warmup_steps=len(losses), steps=0, validation_loss=None)
    validations = tuple(ValidationRecord(steps=after, loss=loss) for after, loss in at)
    ranks = tuple(
        rank(
            number,
            jobs=(steps.model_copy(update={"validations": validations, "shared_loss": shared}),),
            twins=tuple(TwinRecord(twin=twin, losses=each) for twin, each in twins) if number == 0 else (),
            matmul_flops=1e12,
        )
        for number, shared in enumerate(shared_losses)
    )
    return reference(ranks=ranks if status == "ok" else (), status=status, **changes)


def shifted(nats: float, after: int = 0, losses=COURSE) -> tuple[float, ...]:
    return tuple(loss + nats * (number >= after) for number, loss in enumerate(losses))


IDLE = (Twin(kind="idle"), shifted(0.5, 5))
APART = (Twin(kind="apart", parts=2), shifted(0.01, losses=COURSE[:5]))
HALF = (Twin(kind="half"), shifted(0.02, losses=COURSE[:5]))
TIMED_REFERENCE = untimed(twins=(IDLE,), at=((0, AT_START), (STEPS, AT_END)))
PROOF_REFERENCE = untimed(COURSE[:5], twins=(HALF, APART))


def evidence(*, own: Trial | None = None, proof_reference=PROOF_REFERENCE, of_timed=TIMED_REFERENCE, **changes):
    own = untimed(COURSE[:5], shared_losses=(5.0, 5.0)) if own is None else own
    return Evidence(of_timed, ((PROOF, own, proof_reference),), **changes)


def verdict(of: CellRecord | None = None, trials=None, **changes) -> Parity:
    of = of or judged()
    return judge(of, trials or [timed(of)], evidence(**changes))


def test_a_cell_that_computed_the_same_is_ok_with_its_power_and_how_far_it_was_verified():
    parity = verdict()
    assert (parity.word, parity.reason, parity.deviation, parity.verified_steps) == ("ok", None, 0.0, STEPS)
    assert parity.power == pytest.approx(0.01 / 1e-5), "the proof's is less than that of the timed steps"


@pytest.mark.parametrize("after", [0, 5, 12, 19])
def test_losses_of_every_timed_step_are_compared(after):
    parity = verdict(trials=[timed(judged()), timed(judged(), shifted(1e-3, after))])
    assert (parity.word, parity.deviation) == ("failed", pytest.approx(1e-3))
    assert parity.reason.endswith(f"by 0.001 nats per token, first in step {after + 1}")


def test_updates_that_stop_with_the_last_step_show_in_the_validation_loss():
    parity = verdict(trials=[timed(judged(), validation_loss=AT_END + 0.01)])
    assert parity.word == "failed"
    assert "after 20 steps the validation loss differs" in parity.reason


def test_a_cell_without_a_validation_loss_is_undecided():
    parity = verdict(trials=[timed(judged(), validation_loss=None)])
    assert parity.word == "undecided"
    assert "no validation loss" in parity.reason


def test_a_proof_that_deviates_is_a_failure_whatever_the_timed_steps_say():
    parity = verdict(own=untimed(shifted(1e-4, losses=COURSE[:5])))
    assert parity.word == "failed"
    assert "in its proof (fp32, SGD) losses differ" in parity.reason


@pytest.mark.parametrize(
    ("twins", "missing"), [((HALF, (APART[0], shifted(9e-5, losses=COURSE[:5]))), "9"), ((HALF,), None)]
)
def test_where_a_mistake_would_not_show_parity_is_undecided(twins, missing):
    proof_reference = untimed(COURSE[:5], twins=twins)
    idle = untimed(twins=((Twin(kind="idle"), shifted(9e-5, 5)),), at=((0, AT_START), (STEPS, AT_END)))
    parity = verdict(proof_reference=proof_reference, of_timed=idle)
    assert parity.word == "undecided"
    assert "deviates by" in parity.reason


def test_without_any_mistake_to_compare_with_parity_is_undecided():
    bare = untimed(at=((0, AT_START), (STEPS, AT_END)))
    parity = verdict(proof_reference=untimed(COURSE[:5]), of_timed=bare)
    assert parity.word == "undecided"
    assert math.isnan(parity.power)


@pytest.mark.parametrize(
    "changes",
    [
        {"of_timed": None},
        {"of_timed": untimed(COURSE[:10], twins=(IDLE,), at=((0, AT_START), (10, 5.0)))},
        {"of_timed": untimed(twins=(IDLE,), at=((0, AT_START),))},
        {"cap": 10, "of_timed": untimed(COURSE[:10], twins=(IDLE,), at=((0, AT_START), (10, 5.0)))},
    ],
    ids=["no reference", "too short", "not validated", "not launched at the cap"],
)
def test_what_was_not_verified_yet_is_undecided(changes):
    parity = verdict(**changes)
    assert parity.word == "undecided"
    assert parity.reason.endswith("go on with --resume")


def test_a_trial_beyond_the_cap_is_verified_up_to_it():
    short = untimed(COURSE[:10], twins=(IDLE,), at=((0, AT_START), (10, 5.0)))
    good = verdict(cap=10, of_timed=short, capped=untimed(COURSE[:10], at=((10, 5.0),)))
    assert (good.word, good.verified_steps) == ("ok", 10)
    bad = verdict(cap=10, of_timed=short, capped=untimed(COURSE[:10], at=((10, 5.5),)))
    assert bad.word == "failed"


def test_a_cell_whose_proof_failed_is_undecided_with_the_reason():
    parity = verdict(own=untimed(status="failed", reason="rank 0 failed in steps: no sharding strategy"))
    assert parity.word == "undecided"
    assert parity.reason == "undecided: its proof failed: rank 0 failed in steps: no sharding strategy"


def test_a_cell_that_could_not_be_proven_is_undecided():
    of = judged(proofs=())
    assert judge(of, [timed(of)], Evidence(TIMED_REFERENCE)).word == "undecided"


def test_a_run_from_before_there_were_proofs_is_judged_by_its_first_steps():
    of = judged(proofs=None)
    parity = judge(of, [timed(of)], Evidence(untimed(COURSE[:5])))
    assert (parity.word, parity.verified_steps) == ("ok", 5)


def test_the_plain_reference_needs_no_power_and_its_variants_do():
    weak = {"proof_reference": untimed(COURSE[:5]), "of_timed": untimed(at=((0, AT_START), (STEPS, AT_END)))}
    plain = cell("single", proofs=(PROOF,))
    assert verdict(plain, **weak).word == "reference"
    variant = cell("single", label="single(cuda_graphs=True)", proofs=(PROOF,))
    assert verdict(variant, **weak).word == "undecided"


def test_nobody_computes_faster_than_matrix_products():
    of = judged(flops_per_token=1e6)
    tokens = 15 * 8 * 64
    assert verdict(of, [timed(of, window_s=tokens * 1e6 / 2 / 1e12)]).word == "ok", "as fast, on two devices"
    parity = verdict(of, [timed(of, window_s=tokens * 1e6 / 2 / 1.3e12)])
    assert parity.word == "failed"
    assert "it cannot have computed its steps" in parity.reason


def inexact(**changes) -> CellRecord:
    return judged(exact=False, **changes)


def test_an_inexact_cell_may_deviate_as_far_as_shards_that_are_not_synchronised_do_twice():
    assert verdict(inexact(), own=untimed(shifted(0.019, losses=COURSE[:5]))).word == "inexact"
    parity = verdict(inexact(), own=untimed(shifted(0.021, losses=COURSE[:5])))
    assert parity.word == "failed"
    assert "are what an inexact strategy may" in parity.reason


def test_an_inexact_cell_on_one_device_may_deviate_less():
    assert verdict(inexact(data_shards=1), own=untimed(shifted(0.009, losses=COURSE[:5]))).word == "inexact"
    assert verdict(inexact(data_shards=1), own=untimed(shifted(0.011, losses=COURSE[:5]))).word == "failed"


def test_replicas_of_an_inexact_cell_must_be_one_model():
    parity = verdict(inexact(), own=untimed(COURSE[:5], shared_losses=(5.0, 5.001)))
    assert parity.word == "failed"
    assert "its replicas are not one model" in parity.reason


@pytest.mark.parametrize(("loss", "word"), [(4.6, "inexact"), (3.4, "inexact"), (4.7, "failed"), (3.3, "failed")])
def test_an_inexact_cell_must_have_learned_about_as_much_as_the_reference(loss, word):
    of = inexact()
    assert verdict(of, [timed(of, validation_loss=loss)]).word == word


def test_where_the_reference_learns_next_to_nothing_an_inexact_cell_is_undecided():
    still = untimed(twins=(IDLE,), at=((0, AT_START), (STEPS, AT_START - 1e-4)))
    of = inexact()
    parity = verdict(of, [timed(of, validation_loss=AT_START - 1e-4)], of_timed=still)
    assert parity.word == "undecided"
    assert "learns too little" in parity.reason
