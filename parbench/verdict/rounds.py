"""What a cell reached in each round, and in all of them: the only place of this room that looks into launches."""

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable

from parbench.figures.base import Figure
from parbench.figures.statistics import Summary
from parbench.results.judged_cells import JudgedCell


def logarithms(cell: JudgedCell, figure: Figure) -> dict[Hashable, float]:
    """The logarithms of a figure in each round; of several sessions that are pooled, each session's mean of them.

    What differs between two cells may differ from day to day, and rounds of one day share that: then a day is one
    observation, however many rounds it has.
    """
    sessions: defaultdict[int, dict[Hashable, float]] = defaultdict(dict)
    for number, value in cell.values_by_round(figure).items():
        if value > 0:
            sessions[number.session][number] = math.log(value)
    if len(sessions) > 1:
        return {session: statistics.fmean(rounds.values()) for session, rounds in sessions.items()}
    return next(iter(sessions.values()), {})


def summary(cell: JudgedCell, figure: Figure) -> Summary:
    """A figure over all rounds, as tables have it; NaN where no round has a value."""
    return figure.summarise(cell.launches)


def summary_text(cell: JudgedCell, figure: Figure) -> str:
    """A figure over all rounds with its interval, as tables write it: `1.93× [1.91, 1.95]`."""
    value, low, high = summary(cell, figure)
    return figure.with_interval({figure.name: value, f"{figure.name}_ci_low": low, f"{figure.name}_ci_high": high})
