"""What weakens every verdict on a run: too few rounds, windows of too few steps, step times that were not steady."""

from collections.abc import Iterator, Sequence
from statistics import mode
from typing import NamedTuple

from parbench.figures.speed import TOKENS_PER_S, jobs_of
from parbench.figures.steadiness import are_steady
from parbench.results.judged_cells import JudgedCell

FEW_ROUNDS = 5
"""With fewer rounds, noise is hardly known, and a cell has to be much slower to be told apart."""

FEW_STEPS = 10
"""In a window of fewer steps, one disturbed step moves the result by more than cells usually differ."""


class Weakness(NamedTuple):
    """What is wrong, what to do about it, and the cells that it is about: all, where there are none."""

    text: str
    hint: str
    cells: Sequence[JudgedCell] = ()


def warnings_on(cells: Sequence[JudgedCell]) -> Iterator[Weakness]:
    """The warnings on a run's cells, or on those of several sessions."""
    measured = [cell for cell in cells if cell.trials]
    rounds = mode(len(cell.values_by_round(TOKENS_PER_S)) for cell in measured) if measured else FEW_ROUNDS
    if rounds < FEW_ROUNDS:
        yield Weakness(
            f"Only {rounds} round{'s' * (rounds > 1)}: intervals are {'wide' if rounds > 1 else 'missing'}, and "
            "cells that differ by less than their noise cannot be told apart",
            f"Use --rounds {FEW_ROUNDS} or more.",
        )
    short = [cell for cell in measured if fewest_steps(cell) < FEW_STEPS]
    if short:
        yield Weakness(
            f"Windows of fewer than {FEW_STEPS} steps, where one slow step moves the result",
            "Raise measure.window_s.",
            short,
        )
    unsteady = [cell for cell in measured if are_steady(cell.trials) is False]
    if unsteady:
        yield Weakness(
            "Step times were not steady, at the end of warm-up or within the window, in one round or more",
            "Raise measure.warmup, or look at the chart of step times in order.",
            unsteady,
        )


def fewest_steps(cell: JudgedCell) -> int:
    """The steps of the shortest window that any model had in any trial of the cell."""
    return min(job.steps for trial in cell.trials for job in jobs_of(trial))
