"""How wrong the planner is, on stored rows: accuracy, not time. `make accuracy` prints the same figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parbench.predict.calibrate import fit, residuals
from parbench.predict.cases import Case, cases_of
from parbench.predict.constants import PRIORS
from parbench.predict.fitted import NOMINAL, published_fit
from parbench.predict.judge import Judged, Judgement, judge, judge_case, kendall
from parbench.predict.rows import published_rows, read_rows
from tests.predict.tables import accuracy_table

GRID = Path(__file__).parent / "data" / "vtrain_grid.csv"


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return cases_of(published_rows())[0]


@pytest.fixture(scope="module")
def judgement() -> Judgement:
    return judge(published_rows(), published_fit())


def test_left_out_repositories_are_predicted(judgement: Judgement):
    figures = judgement.as_data()
    assert figures["n"] == 434
    assert figures["median_error"] <= 0.085
    assert figures["p90_error"] <= 0.23
    assert max(each["median_error"] for each in figures["by_source"].values()) <= 0.16


def test_intervals_hold_as_many_as_they_say(judgement: Judgement):
    assert judgement.as_data()["coverage"] == pytest.approx(NOMINAL, abs=0.05)


def test_the_grid_of_one_node_is_ordered():
    figures = judge(read_rows(GRID), published_fit()).as_data()
    assert figures["n"] == 1440
    assert figures["median_error"] <= 0.14
    assert figures["p90_error"] <= 0.36
    assert figures["tau"] >= 0.81


def test_the_stored_constants_are_those_of_the_stored_rows(cases: list[Case]):
    assert fit(cases) == pytest.approx(published_fit().constants, rel=1e-3)


def test_a_fit_finds_the_constants_that_made_the_rows(cases: list[Case]):
    true = published_fit().constants
    made = [
        replace(case, tokens_per_s=case.tokens_per_s * float(np.exp(residuals([case], true)[0]))) for case in cases[::3]
    ]
    found = fit(made, prior=true._replace(matmul=true.matmul * 1.1, links=true.links * 0.8), tightness=0.01)
    assert np.median(np.abs(residuals(made, found))) < 0.002


def test_without_rows_the_prior_stays(cases: list[Case]):
    assert fit(cases[:1], tightness=1e4) == pytest.approx([prior.value for prior in PRIORS.values()], rel=1e-3)


def test_a_row_that_was_fitted_is_predicted_without_its_source(cases: list[Case]):
    fitted = published_fit()
    case = next(each for each in cases if each.fold == "bigscience")
    assert judge_case(case, fitted).predicted != judge_case(replace(case, row_id="new"), fitted).predicted
    assert judge_case(case, replace(fitted, constants=fitted.without["bigscience"], identities={})).predicted == (
        judge_case(case, fitted).predicted
    )


@pytest.mark.parametrize(
    "change",
    [{"generation": "other"}, {"devices": 100_000}, {"assumed": ("act_ckpt",)}],
    ids=["unseen", "many", "open"],
)
def test_intervals_are_wider_where_less_is_known(change: dict[str, object], cases: list[Case]):
    case = replace(cases[0], row_id="new", assumed=())
    usual = judge_case(case, published_fit())
    unsure = judge_case(replace(case, **change), published_fit())  # type: ignore[arg-type]
    assert unsure.predicted == usual.predicted
    assert unsure.low < usual.low < usual.high < unsure.high


def judged(measured: float, predicted: float, case: Case, group: str = "a") -> Judged:
    return Judged(replace(case, tokens_per_s=measured, group=(group,)), predicted, 0, 0)


def test_order_is_judged_among_layouts_of_one_model(cases: list[Case]):
    case = cases[0]
    rows = [judged(100, 10, case), judged(200, 20, case), judged(300, 15, case)]
    assert kendall(rows) == pytest.approx((1 + 1 - 1) / 3)
    assert kendall([judged(100, 10, case), judged(101, 5, case)]) is None  # no more than noise
    assert kendall([judged(100, 10, case), judged(200, 5, case, "b")]) is None


def test_errors_are_relative_to_what_was_measured(cases: list[Case]):
    assert judged(100, 90, cases[0]).error == pytest.approx(-0.1)
    assert Judged(cases[0], 1, cases[0].tokens_per_s, cases[0].tokens_per_s).is_held
    assert not Judged(cases[0], 1, cases[0].tokens_per_s * 1.01, cases[0].tokens_per_s * 2).is_held


def test_the_page_has_these_figures(judgement: Judgement):
    page = (Path(__file__).parents[2] / "docs" / "planner.md").read_text()
    missing = [line for line in accuracy_table(judgement).splitlines() if line not in page]
    assert not missing, "write the output of make accuracy into docs/planner.md"
