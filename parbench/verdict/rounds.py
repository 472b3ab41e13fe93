"""What a cell reached in each round, and in all of them: the only place of this room that looks into launches."""

from collections.abc import Hashable

from parbench.figures.base import Figure
from parbench.figures.statistics import Summary
from parbench.results.judged_cells import JudgedCell


def values_by_round(cell: JudgedCell, figure: Figure) -> dict[Hashable, float]:
    """A figure's value in each round that has one. Cells are compared in rounds of the same id, whatever it is."""
    return dict(cell.values_by_round(figure))


def summary(cell: JudgedCell, figure: Figure) -> Summary:
    """A figure over all rounds, as tables have it; NaN where no round has a value."""
    return figure.summarise(cell.launches)


def summary_text(cell: JudgedCell, figure: Figure) -> str:
    """A figure over all rounds with its interval, as tables write it: `1.93× [1.91, 1.95]`."""
    value, low, high = summary(cell, figure)
    return figure.with_interval({figure.name: value, f"{figure.name}_ci_low": low, f"{figure.name}_ci_high": high})
