"""The error rates that the README states: seeded campaigns of 40 cells with the nested noise of real ones."""

import numpy as np
import pytest

from parbench.check.decide import paired
from parbench.scenario import CheckSpec
from tests import simulation

CELLS, CAMPAIGNS = 40, 1000
SPEC = CheckSpec(gate=("step_time_min_s",))

# sessions stored (None: two arms in turns), rounds, margin, test
DESIGNS = {
    "10 sessions of 5 rounds": (10, 5, SPEC.margin, simulation.between_sessions_p),
    "10 sessions of 10 rounds": (10, 10, SPEC.margin, simulation.between_sessions_p),
    "1 session of 5 rounds": (1, 5, SPEC.margin_few_sessions, simulation.within_run_p),
    "1 session of 10 rounds": (1, 10, SPEC.margin_few_sessions, simulation.within_run_p),
    "two arms, 10 rounds": (None, 10, SPEC.margin, simulation.paired_p),
    "two arms, 20 rounds": (None, 20, SPEC.margin, simulation.paired_p),
}
POWER = {  # the least share of campaigns in which the one slowed cell is found, at +10 % and at +20 %
    "10 sessions of 5 rounds": (0.2, 0.95),
    "10 sessions of 10 rounds": (0.35, 0.95),
    "1 session of 5 rounds": (0.0, 0.4),
    "1 session of 10 rounds": (0.15, 0.9),
    "two arms, 10 rounds": (0.25, 0.9),
    "two arms, 20 rounds": (0.7, 0.95),
}


def found(design: str, campaigns: int, slowdown: float = 0.0, metric=SPEC.gate[0]) -> np.ndarray:
    """For every campaign and cell, whether it is called regressed where Holm's first step decides."""
    sessions, rounds, margin, test = DESIGNS[design]
    rng = np.random.default_rng(5)
    shares = []
    for _ in range(campaigns):
        if sessions is None:
            values = simulation.arms(rng, (rounds, CELLS), metric, slowdown)
        else:
            values = simulation.campaign(rng, (sessions + 1, rounds, CELLS), metric, slowdown)
        shares.append(test(values, margin) < SPEC.alpha / CELLS)
    return np.array(shares)


@pytest.mark.parametrize("design", DESIGNS)
def test_false_alarms_in_null_campaigns(design: str) -> None:
    share = found(design, CAMPAIGNS).any(axis=1).mean()
    print(f"{design}: a false alarm in {share:.1%} of {CAMPAIGNS} campaigns of {CELLS} cells")
    assert share <= 0.05


@pytest.mark.parametrize("design", DESIGNS)
def test_power(design: str) -> None:
    shares = [found(design, 200, slowdown)[:, 0].mean() for slowdown in (0.1, 0.2)]
    print(f"{design}: +10 % found in {shares[0]:.0%}, +20 % in {shares[1]:.0%}")
    assert tuple(shares) >= POWER[design]
    assert shares[1] >= POWER[design][1]


def test_the_fastest_step_has_the_most_power_of_the_three_statistics() -> None:
    design = "10 sessions of 5 rounds"
    shares = {metric: found(design, 200, 0.1, metric)[:, 0].mean() for metric in simulation.QUANTILES}
    print(shares)
    assert max(shares, key=shares.__getitem__) == "step_time_min_s" == CheckSpec().gate[0]


@pytest.mark.parametrize(("sessions", "test"), [(10, "between_sessions_p"), (1, "within_run_p")])
def test_parbench_makes_the_test_that_is_simulated(sessions: int, test: str) -> None:
    rng = np.random.default_rng(7)
    for slowdown in (0.0, 0.3):
        values = simulation.campaign(rng, (sessions + 1, 5, CELLS), SPEC.gate[0], slowdown)
        findings = {finding.cell: finding for finding in simulation.judged(values, SPEC)}
        p = getattr(simulation, test)(values, findings["cell 0"].margin)
        assert [finding.cell for finding in findings.values() if finding.verdict == "regressed"] == [
            f"cell {number}" for number in np.flatnonzero(p < SPEC.alpha / CELLS)
        ]
        assert findings["cell 0"].p == pytest.approx(min(1, p[0] * (np.sum(p >= p[0]))), rel=1e-6)


def test_arms_are_tested_as_simulated() -> None:
    values = simulation.arms(np.random.default_rng(8), (10, CELLS), SPEC.gate[0])
    one_by_one = [paired(list(changes), SPEC.margin).p_worse for changes in (values[1] - values[0]).T]
    assert one_by_one == pytest.approx(simulation.paired_p(values, SPEC.margin))
