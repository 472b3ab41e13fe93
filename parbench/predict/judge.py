"""How wrong the planner is on measured rows: errors, order, and how many measurements its intervals hold."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from parbench.predict.calibrate import predicted
from parbench.predict.cases import Case, cases_of
from parbench.predict.constants import Constants
from parbench.predict.fitted import EXTRAPOLATION, NOMINAL, WIDER, Fitted, openness
from parbench.predict.problem import Problem
from parbench.predict.rows import Row

SAME = 0.02
"""Measurements that differ by less are not ranked: repeated ones do as well."""


@dataclass(frozen=True)
class Judged:
    """A row with what was predicted of it, in tokens per second of all devices."""

    case: Case
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return self.predicted / self.case.tokens_per_s - 1

    @property
    def is_held(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.low <= self.case.tokens_per_s <= self.high


@dataclass(frozen=True)
class Judgement:
    """All rows of a table, and the reasons why some cannot be predicted."""

    rows: Sequence[Judged]
    refused: dict[str, str]

    def as_data(self) -> dict[str, Any]:
        """The summary as JSON has it; shares of one, and None where there is nothing to say."""
        sources = sorted({row.case.fold for row in self.rows})
        of_source = {fold: [row for row in self.rows if row.case.fold == fold] for fold in sources}
        return {
            **summary(self.rows),
            "nominal_coverage": NOMINAL,
            "by_source": {fold: summary(rows) for fold, rows in of_source.items()},
            "left_out": self.refused,
        }


def judge(rows: Iterable[Row], fitted: Fitted) -> Judgement:
    """Predicts all rows that can be predicted.

    A row that the constants were fitted to is predicted with those that were fitted without its source.
    """
    cases, refused = cases_of(rows)
    return Judgement([judge_case(case, fitted) for case in cases], refused)


def judge_case(case: Case, fitted: Fitted) -> Judged:
    """The prediction of one case, with its interval."""
    fold = fitted.identities.get(case.row_id)
    constants: Constants = fitted.without[fold] if fold else fitted.constants
    value = float(predicted(Problem.stacked([case.numbers]), constants)[0])
    reach = math.exp(fitted.reach(fold) * widening(case, fitted))
    return Judged(case, value, value / reach, value * reach)


def widening(case: Case, fitted: Fitted) -> float:
    """How much less sure a prediction is than those of the rows that were fitted."""
    reasons = (
        case.generation not in fitted.generations,
        case.devices > EXTRAPOLATION * fitted.most_devices,
    )
    return openness(case) * float(WIDER ** sum(reasons))


def summary(rows: Sequence[Judged]) -> dict[str, Any]:
    """Figures of some rows: n, errors as shares, Kendall's tau, and the share of intervals that hold."""
    if not rows:
        return {"n": 0, "median_error": None, "p90_error": None, "bias": None, "tau": None, "coverage": None}
    errors = np.array([row.error for row in rows])
    return {
        "n": len(rows),
        "median_error": float(np.median(np.abs(errors))),
        "p90_error": float(np.quantile(np.abs(errors), 0.9)),
        "bias": float(np.median(errors)),
        "tau": kendall(rows),
        "coverage": float(np.mean([row.is_held for row in rows])),
    }


def kendall(rows: Sequence[Judged]) -> float | None:
    """Pairs in the right order less those in the wrong one, over all pairs: of rows that differ in their layout alone,
    and by more than repeated measurements do. None where there are no such pairs.
    """
    groups: dict[object, list[Judged]] = defaultdict(list)
    for row in rows:
        groups[row.case.group].append(row)
    signs = [
        math.copysign(1, first.case.tokens_per_s - second.case.tokens_per_s)
        * np.sign(first.predicted - second.predicted)
        for members in groups.values()
        for first, second in combinations(members, 2)
        if abs(math.log(first.case.tokens_per_s / second.case.tokens_per_s)) > math.log1p(SAME)
    ]
    return float(np.mean(signs)) if signs else None
