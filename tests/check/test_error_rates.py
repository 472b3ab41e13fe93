"""A small share of the simulation that docs/regression.md cites; `python -m tests.benchmarks.error_rates` makes all."""

import numpy as np
import pytest

from parbench.check.looks import looks_between
from parbench.check.two_arms import compare_rounds
from parbench.scenario.specs import CheckSpec
from tests.benchmarks.error_rates import DESIGNS, GATES
from tests.support.confirmation import confirmed_shares
from tests.support.simulation import (
    QUIET,
    STORED,
    UNEQUAL,
    Noise,
    Paired,
    Sequential,
    Slowdown,
    arms,
    campaigns,
    judged,
    paired_p,
    unmoderated_paired_p,
)

CELLS, CAMPAIGNS, SLOWED = 40, 100, 60
# The least share of campaigns in which the one slowed cell is found, at +10 % and at +20 %: one metric, default gate.
POWER = {
    "10 sessions of 5 rounds": ((0.15, 0.9), (0.08, 0.8)),
    "1 session of 10 rounds": ((0.2, 0.95), (0.15, 0.93)),
    "two arms, 10 rounds": ((0.75, 0.95), (0.6, 0.95)),
}


def draw_regressed(design: str, count: int, noise: Noise = QUIET, slow: Slowdown = Slowdown()) -> np.ndarray:  # noqa: B008
    return DESIGNS[design].draw_regressed(np.random.default_rng(5), (count, CELLS), GATES.values(), noise, slow)


@pytest.mark.parametrize("noise", [QUIET, STORED], ids=["quiet", "stored"])
@pytest.mark.parametrize("design", POWER)
def test_false_alarms_in_null_campaigns(design: str, noise: Noise) -> None:
    assert (draw_regressed(design, CAMPAIGNS, noise).any(axis=2).mean(axis=1) <= 0.05).all()


@pytest.mark.parametrize("design", POWER)
def test_power(design: str) -> None:
    shares = [draw_regressed(design, SLOWED, slow=Slowdown(share=share))[:, :, 0].mean(axis=1) for share in (0.1, 0.2)]
    for least, small, large in zip(POWER[design], *shares, strict=True):
        assert small >= least[0]
        assert large >= least[1]


def test_throughput_sees_what_slows_only_some_steps() -> None:
    """Such as the averaging of local_sgd: one step in five takes twice as long, all together 20 % more."""
    blind, seeing = draw_regressed("two arms, 10 rounds", SLOWED, slow=Slowdown(share=0.2, every=5))[:, :, 0].mean(
        axis=1
    )
    assert blind <= 0.01
    assert seeing >= 0.8


def test_variances_that_learn_from_each_other_find_more_and_cry_wolf_no_more_often() -> None:
    """Even where every cell has its own noise and all are slower by just the margin, which is the worst case."""
    rng = np.random.default_rng(2)
    values = arms(rng, (400, 2, 5, CELLS), UNEQUAL, Slowdown())["step_time_min_s"]
    false = [(test(values, 0.0) < 0.05 / CELLS).any(axis=1).mean() for test in (unmoderated_paired_p, paired_p)]
    assert max(false) <= 0.065
    slow = arms(rng, (SLOWED, 2, 5, CELLS), STORED, Slowdown(share=0.2))["step_time_min_s"]
    alone, together = ((test(slow, 0.02) < 0.05 / CELLS)[:, 0].mean() for test in (unmoderated_paired_p, paired_p))
    assert together >= alone + 0.2


def test_rounds_that_are_added_until_all_is_decided_find_ten_per_cent() -> None:
    design = Sequential(looks_between(10, 40), CheckSpec())
    false, _ = design.draw_regressed(np.random.default_rng(5), (40, CELLS), STORED, Slowdown())
    right, rounds = design.draw_regressed(np.random.default_rng(6), (40, CELLS), STORED, Slowdown(share=0.1))
    assert false.any(axis=1).mean() <= 0.05
    assert right[:, 0].mean() >= 0.8
    assert rounds.mean() < 40


def test_a_second_run_clears_false_alarms_and_few_true_ones() -> None:
    shares = list(confirmed_shares(5, (200, CELLS), 10, STORED, 0.1, arms=True).values())
    alone, estimate, _, both = shares
    assert both >= 0.9 * alone
    assert both > estimate


def test_the_fastest_step_has_the_most_power_of_the_three_statistics() -> None:
    statistics = ("step_time_min_s", "step_time_p10_s", "step_time_s")
    gates = [CheckSpec(gate=(metric,)) for metric in statistics]
    design, slow = DESIGNS["two arms, 10 rounds"], Slowdown(share=0.1)
    shares = design.draw_regressed(np.random.default_rng(5), (SLOWED, CELLS), gates, QUIET, slow)[:, :, 0].mean(axis=1)
    assert statistics[int(shares.argmax())] == "step_time_min_s" == CheckSpec().gate[0]


@pytest.mark.parametrize("design", ["10 sessions of 5 rounds", "1 session of 5 rounds"])
def test_parbench_makes_the_tests_that_are_simulated(design: str) -> None:
    spec, simulated = CheckSpec(), DESIGNS[design]
    for share in (0.0, 0.3):
        size, slow = (1, CELLS), Slowdown(share=share)
        shape = (1, simulated.sessions, simulated.rounds, CELLS)
        values = campaigns(np.random.default_rng(7), shape, QUIET, slow)
        ((cells,),) = simulated.draw_regressed(np.random.default_rng(7), size, [spec], QUIET, slow)
        findings = [finding for finding in judged(values, spec) if finding.gated]
        regressed = {finding.cell for finding in findings if finding.verdict == "regressed"}
        assert regressed == {f"cell {number}" for number in np.flatnonzero(cells)}
        tests = {m: simulated.test(values[m], simulated.margin(spec, m))[0] for m in simulated.gated(spec, values)}
        family, p = np.concatenate(list(tests.values())), tests["step_time_min_s"][0]
        one = next(each for each in findings if (each.cell, each.metric) == ("cell 0", "step_time_min_s"))
        assert len(findings) == len(family)
        assert one.p == pytest.approx(max(min(1, q * np.sum(family >= q)) for q in family[family <= p]), rel=1e-3)


def test_arms_are_tested_as_simulated() -> None:
    spec, looks = CheckSpec(), looks_between(5, 10)
    values = arms(np.random.default_rng(8), (1, 2, 10, CELLS), UNEQUAL, Slowdown())["step_time_min_s"]
    changes = {f"{number}": list(each) for number, each in enumerate((values[0, 1] - values[0, 0]).T)}
    compared = compare_rounds(changes, spec.margin)
    assert [each.p_worse for each in compared.values()] == pytest.approx(paired_p(values, spec.margin)[0])
    effects = Paired.of(values).detectable(np.expm1(np.log1p(spec.margin)), 0.001, 0.8)[0]
    assert [each.detectable(0.001, 0.8) for each in compared.values()] == pytest.approx(effects)
    sequential = compare_rounds(changes, spec.margin, looks)
    first = Paired.of(values[:, :, :5]).p_worse(spec.margin)[0]
    expected = [
        min(looks.repeated_p(early, 0), looks.repeated_p(late, 1))
        for early, late in zip(first, paired_p(values, spec.margin)[0], strict=True)
    ]
    assert [each.p_worse for each in sequential.values()] == pytest.approx(expected)
