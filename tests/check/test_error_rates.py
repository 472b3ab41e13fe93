"""The error rates that docs/regression.md states: seeded campaigns of 40 cells with the nested noise of real ones."""

import numpy as np
import pytest

from parbench.check.significance import paired
from parbench.scenario.specs import CheckSpec
from tests.support.simulation import (
    Design,
    Slowdown,
    arms,
    between_sessions_p,
    campaign,
    judged,
    paired_p,
    within_run_p,
)

CELLS, CAMPAIGNS, SLOWED = 40, 1000, 200
GATES = {"one metric": CheckSpec(gate=("step_time_min_s",)), "default gate": CheckSpec()}
DESIGNS = {
    "10 sessions of 5 rounds": Design(sessions=11, rounds=5, drawn=campaign, test=between_sessions_p),
    "10 sessions of 10 rounds": Design(sessions=11, rounds=10, drawn=campaign, test=between_sessions_p),
    "1 session of 5 rounds": Design(sessions=2, rounds=5, drawn=campaign, test=within_run_p),
    "1 session of 10 rounds": Design(sessions=2, rounds=10, drawn=campaign, test=within_run_p),
    "two arms, 10 rounds": Design(sessions=2, rounds=10, drawn=arms, test=paired_p),
    "two arms, 20 rounds": Design(sessions=2, rounds=20, drawn=arms, test=paired_p),
}
# The least share of campaigns in which the one slowed cell is found, at +10 % and at +20 %: one metric, default gate.
POWER = {
    "10 sessions of 5 rounds": ((0.22, 0.95), (0.12, 0.88)),
    "10 sessions of 10 rounds": ((0.35, 0.95), (0.25, 0.95)),
    "1 session of 5 rounds": ((0.05, 0.55), (0.02, 0.5)),
    "1 session of 10 rounds": ((0.28, 0.95), (0.22, 0.93)),
    "two arms, 10 rounds": ((0.58, 0.95), (0.38, 0.95)),
    "two arms, 20 rounds": ((0.93, 0.95), (0.9, 0.95)),
}


def found(design: str, campaigns: int, slow: Slowdown = Slowdown(), gates=GATES.values()) -> np.ndarray:  # noqa: B008
    """For every gate, campaign and cell, whether it is called regressed."""
    rng = np.random.default_rng(5)
    each = [DESIGNS[design].found(rng, CELLS, gates, slow) for _ in range(campaigns)]
    return np.array(each).swapaxes(0, 1)


@pytest.mark.parametrize("design", DESIGNS)
def test_false_alarms_in_null_campaigns(design: str) -> None:
    shares = found(design, CAMPAIGNS).any(axis=2).mean(axis=1)
    for gate, share in zip(GATES, shares, strict=True):
        print(f"{design}, {gate}: a false alarm in {share:.1%} of {CAMPAIGNS} campaigns of {CELLS} cells")
        assert share <= 0.05


@pytest.mark.parametrize("design", DESIGNS)
def test_power(design: str) -> None:
    shares = [found(design, SLOWED, Slowdown(share=share))[:, :, 0].mean(axis=1) for share in (0.1, 0.2)]
    for gate, least, small, large in zip(GATES, POWER[design], *shares, strict=True):
        print(f"{design}, {gate}: +10 % found in {small:.0%}, +20 % in {large:.0%}")
        assert small >= least[0]
        assert large >= least[1]


@pytest.mark.parametrize("design", ["10 sessions of 5 rounds", "1 session of 10 rounds", "two arms, 10 rounds"])
def test_throughput_sees_what_slows_only_some_steps(design: str) -> None:
    """Such as the averaging of local_sgd: one step in five takes twice as long, all together 20 % more."""
    without = CheckSpec(gate=tuple(name for name in CheckSpec().gate if name != "tokens_per_s"))
    gates, some = (without, CheckSpec()), Slowdown(share=0.2, every=5)
    blind, seeing = found(design, SLOWED, some, gates)[:, :, 0].mean(axis=1)
    before, after = found(design, SLOWED, Slowdown(share=0.1), gates)[:, :, 0].mean(axis=1)
    print(f"{design}: found in {seeing:.0%}, without throughput in {blind:.0%}; costs {before:.0%} - {after:.0%}")
    assert blind <= 0.01
    assert seeing >= 0.4
    assert before - after <= 0.08


def test_the_fastest_step_has_the_most_power_of_the_three_statistics() -> None:
    statistics = ("step_time_min_s", "step_time_p10_s", "step_time_s")
    gates = [CheckSpec(gate=(metric,)) for metric in statistics]
    shares = found("10 sessions of 5 rounds", SLOWED, Slowdown(share=0.1), gates)[:, :, 0].mean(axis=1)
    print(dict(zip(statistics, shares, strict=True)))
    assert statistics[int(shares.argmax())] == "step_time_min_s" == CheckSpec().gate[0]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("design", ["10 sessions of 5 rounds", "1 session of 5 rounds"])
def test_parbench_makes_the_tests_that_are_simulated(design: str, gate: str) -> None:
    spec, simulated = GATES[gate], DESIGNS[design]
    for share in (0.0, 0.3):
        shape, slow = (simulated.sessions, simulated.rounds, CELLS), Slowdown(share=share)
        values = campaign(np.random.default_rng(7), shape, slow, spec.gate)
        (cells,) = simulated.found(np.random.default_rng(7), CELLS, [spec], slow)
        findings = [finding for finding in judged(values, spec) if finding.gated]
        regressed = {finding.cell for finding in findings if finding.verdict == "regressed"}
        assert regressed == {f"cell {number}" for number in np.flatnonzero(cells)}
        family = np.concatenate(
            [simulated.test(values[name], simulated.margin(spec, name)) for name in spec.gate if name in values]
        )
        one = next(each for each in findings if (each.cell, each.metric) == ("cell 0", "step_time_min_s"))
        p = simulated.test(values["step_time_min_s"], simulated.margin(spec, "step_time_min_s"))[0]
        assert len(findings) == len(family)
        assert one.p == pytest.approx(max(min(1, q * np.sum(family >= q)) for q in family[family <= p]), rel=1e-3)


def test_arms_are_tested_as_simulated() -> None:
    margin = CheckSpec().margin
    logs = arms(np.random.default_rng(8), (2, 10, CELLS), Slowdown(), ["step_time_min_s"])["step_time_min_s"]
    one_by_one = [paired(list(changes), margin).p_worse for changes in (logs[1] - logs[0]).T]
    assert one_by_one == pytest.approx(paired_p(logs, margin))
