"""Two arms in turns: what decides, and what more rounds do."""

import pytest

from parbench.check.looks import looks_between
from parbench.check.two_arms import against_arm, compare_rounds
from tests.support.check_runs import CALM, DDP, SINGLE, run, verdicts


def test_two_arms_are_compared_within_rounds() -> None:
    base = run("base", single=(1, 2, 3, 4, 5), ddp=(1, 2, 3, 4, 5))
    report = against_arm(run("candidate", single=(1, 2, 3, 4, 5), ddp=(1.31, 2.6, 3.9, 5.2, 6.5)), base, "A/B")
    assert verdicts(report) == {SINGLE.id: "ok", DDP.id: "regressed"}
    finding = next(each for each in report.of("regressed") if each.metric == "step_time_min_s")
    assert (finding.method, finding.ratio) == ("paired", pytest.approx(1.3, rel=0.01))
    assert finding.p_permutation == pytest.approx(1 / 2**5)


def test_a_better_reference_is_no_regression_of_the_others() -> None:
    """The ratio to it is worse, for certain; but the cell itself is what it was, and that is compared."""
    report = against_arm(run("candidate", single=[0.8 * each for each in CALM]), run("base"), "A/B")
    assert verdicts(report) == {SINGLE.id: "improved", DDP.id: "ok"}
    assert verdicts(report, "relative_step_time") == {DDP.id: "regressed"}
    assert "relative_step_time" not in {each.metric for each in report.findings if each.gated}
    assert report.exit_code(strict=True) == 0


def test_with_looks_the_p_value_accounts_for_each_of_them() -> None:
    changes = {"cell": [0.1, 0.2, 0.15, 0.12, 0.18, 0.14]}
    once = compare_rounds(changes, 0.02)["cell"]
    first_look = compare_rounds({"cell": changes["cell"][:4]}, 0.02, looks_between(4, 6))["cell"]
    last_look = compare_rounds(changes, 0.02, looks_between(4, 6))["cell"]
    assert (once.look, first_look.look, last_look.look) == (0, 0, 1)
    assert once.p_worse < last_look.p_worse < first_look.p_worse


def test_what_was_found_at_an_early_look_stays_found() -> None:
    changes = [0.1, 0.11, 0.09, 0.1, 0.1, 0.1, -3.0, 3.0]
    early = compare_rounds({"cell": changes[:6]}, 0.02, looks_between(6, 8))["cell"]
    late = compare_rounds({"cell": changes}, 0.02, looks_between(6, 8))["cell"]
    assert late.p_worse == pytest.approx(early.p_worse)


def test_more_rounds_are_asked_for_only_while_they_may_decide() -> None:
    looks = looks_between(5, 20)
    for slower, undecided in ((1.0, False), (1.5, False), (1.06, True)):
        noisy = [slower * each for each in (1.02, 0.98, 1.02, 0.98, 1.0)]
        report = against_arm(run("candidate", ddp=noisy), run("base", ddp=(1,) * 5), "A/B", looks=looks)
        step = next(each for each in report.findings if (each.cell, each.metric) == (DDP.id, "step_time_min_s"))
        assert step.undecided is undecided, (slower, step)
    last = against_arm(run("candidate", ddp=noisy), run("base", ddp=(1,) * 5), "A/B", looks=looks_between(5, 5))
    assert not any(each.undecided for each in last.findings if each.verdict == "ok")
