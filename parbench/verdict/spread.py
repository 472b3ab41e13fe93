"""How much launches of a cell differ by luck: what effects of cells and rounds leave, pooled over cells of like kind.

A model of two additive effects on the log scale: value = cell + round + luck. A round that is slow for all cells says
nothing of any of them, as in ratios within rounds. Three rounds of one cell leave 2 degrees of freedom; those of all
cells together leave enough to tell cells apart (Montgomery, "Design and Analysis of Experiments", randomized blocks).
"""

import math
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

H = TypeVar("H", bound=Hashable)

Samples = Mapping[str, Mapping[Hashable, float]]
"""The logarithm of a figure, by cell and round."""

NO_SPREAD = 1e-9
"""What is less than this on the log scale is rounding."""

LEVEL = 0.05
"""The level of the test by which a kind or a cell is called noisier than the rest."""

WORTH_A_POOL = 2.0
"""How many times the variance of the rest it must have: less changes an interval by less than a fifth."""


class Spread(NamedTuple):
    """The variance of one launch on the log scale with its degrees of freedom; cells of the same `pool` share it."""

    pool: Hashable
    variance: float
    df: float


class Residual(NamedTuple):
    """What the effects leave of one launch, and how many degrees of freedom: 1 less its leverage."""

    value: float
    df: float


Residuals = dict[str, list[Residual]]


def spreads_of(samples: Samples, kinds: Mapping[str, str]) -> dict[str, Spread]:
    """The spread of each cell; a cell is absent where no launches tell, as after a single round.

    All cells share one variance, but kinds and cells that are noisier than the rest do not: such a kind has a variance
    of its own, and so has such a cell. A cell that is called noisier by mistake only gets a wider interval.
    """
    residuals = residuals_of(samples)
    noisy_kinds = _noisier(_merge(residuals, kinds))
    pools: dict[str, Hashable] = {
        cell: ("kind", kinds[cell]) if kinds[cell] in noisy_kinds else "the rest" for cell in residuals
    }
    for pool in set(pools.values()):
        members = {cell: each for cell, each in residuals.items() if pools[cell] == pool}
        pools |= {cell: ("cell", cell) for cell in _noisier(members)}
    return {
        cell: Spread(pools[cell], sum(each.value**2 for each in pooled) / df, df)
        for pool, pooled in _merge(residuals, pools).items()
        if (df := sum(each.df for each in pooled)) > NO_SPREAD
        for cell in residuals
        if pools[cell] == pool
    }


def residuals_of(samples: Samples) -> Residuals:
    """The residuals of each cell after least squares of a cell effect and a round effect. Rounds may be missing.

    Cell effects are eliminated first (Frisch–Waugh–Lovell), so that only a column for each round is left to solve.
    """
    launches = [(cell, number, value) for cell, rounds in samples.items() for number, value in rounds.items()]
    if not launches:
        return {}
    cells, of_cell = _codes(cell for cell, _, _ in launches)
    rounds, of_round = _codes(number for _, number, _ in launches)
    counts = np.bincount(of_cell)
    columns = np.column_stack([np.array([value for *_, value in launches]), np.eye(len(rounds))[of_round]])
    means = np.zeros((len(cells), columns.shape[1]))
    np.add.at(means, of_cell, columns)
    values, dummies = np.hsplit(columns - (means / counts[:, None])[of_cell], [1])
    directions, sizes, _ = np.linalg.svd(dummies, full_matrices=False)
    directions = directions[:, sizes > NO_SPREAD]
    left = values[:, 0] - directions @ (directions.T @ values[:, 0])
    df = 1 - 1 / counts[of_cell] - (directions**2).sum(axis=1)
    residuals: Residuals = {cell: [] for cell in samples}
    for (cell, _, _), value, share in zip(launches, left, df, strict=True):
        if share > NO_SPREAD:
            residuals[cell].append(Residual(float(value), float(share)))
    return residuals


def _noisier(groups: Mapping[H, list[Residual]]) -> set[H]:
    """The groups that are noisier than all others together: Brown and Forsythe's test (1974), each against the rest."""
    from scipy.stats import levene

    scaled = {name: [each.value / each.df**0.5 for each in group] for name, group in groups.items()}
    noisier = set()
    for name, own in scaled.items():
        others = [value for other, group in scaled.items() if other != name for value in group]
        bar = max(WORTH_A_POOL * _square_mean(others), NO_SPREAD**2) if len(others) > 1 else math.inf
        if len(own) < 2 or _square_mean(own) < bar:
            continue
        with warnings.catch_warnings():  # residuals may all be equal, which makes no p-value
            warnings.simplefilter("ignore")
            if levene(own, others, center="median").pvalue < LEVEL:
                noisier.add(name)
    return noisier


def _merge(residuals: Residuals, names: Mapping[str, H]) -> dict[H, list[Residual]]:
    """The residuals of all cells that have the same name."""
    merged: defaultdict[H, list[Residual]] = defaultdict(list)
    for cell, own in residuals.items():
        merged[names[cell]].extend(own)
    return merged


def _codes(names: Iterable[Hashable]) -> tuple[list[Hashable], np.ndarray]:
    """The distinct names in order, and for each name its place among them."""
    places: dict[Hashable, int] = {}
    codes = np.array([places.setdefault(name, len(places)) for name in names])
    return list(places), codes


def _square_mean(values: list[float]) -> float:
    return float(np.mean(np.square(values)))
