import math

import numpy as np
import pytest

from parbench.verdict.spread import residuals_of, spreads_of


def table(rows):
    """Values by cell and round; None is a round that a cell does not have."""
    return {
        f"cell {index}": {number: value for number, value in enumerate(row) if value is not None}
        for index, row in enumerate(rows)
    }


def test_residuals_are_what_effects_of_cells_and_rounds_leave():
    # The means of the cells are 2, 5 and 5, those of the rounds 3, 4 and 5; the mean of all is 4.
    residuals = residuals_of(table([[1, 2, 3], [3, 6, 6], [5, 4, 6]]))
    values = {cell: [each.value for each in own] for cell, own in residuals.items()}
    assert values == {
        "cell 0": pytest.approx([0, 0, 0]),
        "cell 1": pytest.approx([-1, 1, 0]),
        "cell 2": pytest.approx([1, -1, 0]),
    }
    # (3 - 1) × (3 - 1) degrees of freedom, shared by nine launches.
    assert [each.df for own in residuals.values() for each in own] == pytest.approx([4 / 9] * 9)


def test_all_cells_share_the_variance_of_what_is_left():
    spreads = spreads_of(table([[1, 2, 3], [3, 6, 6], [5, 4, 6]]), {f"cell {index}": "kind" for index in range(3)})
    assert {spread.pool for spread in spreads.values()} == {"the rest"}
    assert {(round(spread.variance, 9), round(spread.df, 9)) for spread in spreads.values()} == {(1.0, 4.0)}


def test_rounds_that_some_cells_lack_are_as_least_squares_has_them():
    rows = [[0.1, 0.5, None], [0.3, None, 0.9], [0.2, 0.7, 0.4], [0.8, 0.6, 0.1]]
    known = [(cell, number, value) for cell, row in enumerate(rows) for number, value in enumerate(row) if value]
    design = np.array([[*np.eye(4)[cell], *np.eye(3)[number]] for cell, number, _ in known])
    values = np.array([value for *_, value in known])
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    residuals = [each for own in residuals_of(table(rows)).values() for each in own]
    assert [each.value for each in residuals] == pytest.approx(list(left))
    assert sum(each.df for each in residuals) == pytest.approx(len(values) - np.linalg.matrix_rank(design))


def test_sessions_whose_rounds_have_other_ids_are_pooled():
    rng = np.random.default_rng(0)
    rows = {f"cell {index}": rng.normal(0, 1, 6) for index in range(4)}
    ids = [("monday", number) for number in range(3)] + [("tuesday", number) for number in range(3)]
    samples = {cell: dict(zip(ids, values, strict=True)) for cell, values in rows.items()}
    assert spreads_of(samples, dict.fromkeys(rows, "kind"))["cell 0"].df == pytest.approx(3 * 5)


def test_a_single_round_or_a_single_cell_says_nothing():
    kinds = {f"cell {index}": "kind" for index in range(3)}
    assert spreads_of(table([[1.0], [2.0], [3.0]]), kinds) == {}
    assert spreads_of(table([[1.0, 2.0, 3.0]]), kinds) == {}
    assert spreads_of({}, kinds) == {}


def noisy(rows, noisy_rows, factor):
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.04, (rows, 5))
    values[list(noisy_rows)] *= factor
    return table(values.tolist())


def test_a_kind_that_is_noisier_has_a_variance_of_its_own():
    kinds = {f"cell {index}": "calm" if index < 9 else "wild" for index in range(12)}
    spreads = spreads_of(noisy(12, (9, 10, 11), 6), kinds)
    assert spreads["cell 9"].pool == spreads["cell 11"].pool == ("kind", "wild")
    assert spreads["cell 0"].pool == "the rest"
    assert math.sqrt(spreads["cell 9"].variance) > 3 * math.sqrt(spreads["cell 0"].variance)


def test_a_cell_that_is_noisier_than_its_like_keeps_its_own_variance():
    spreads = spreads_of(noisy(12, (4,), 10), {f"cell {index}": "kind" for index in range(12)})
    assert spreads["cell 4"].pool == ("cell", "cell 4")
    assert spreads["cell 4"].df == pytest.approx(4 * 11 / 12)
    assert spreads["cell 5"].pool == "the rest"
