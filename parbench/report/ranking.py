"""Which cells of a panel are compared by speed, which of them tie, and how they compare in memory."""

import math
from collections.abc import Sequence

from parbench.figures.statistics import Summary, summarise_rounds
from parbench.report.panels import CellView, Panel, group_by


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two intervals have a value in common."""
    return a[0] <= b[1] and b[0] <= a[1]


def rivals_of(panel: Panel) -> list[CellView]:
    """The cells that the verdict compares: those that compute what the reference computes, on as many models."""
    exact = [cell for cell in ranked_cells(panel) if is_exact(cell)]
    return [cell for cell in exact if cell.record.models == model_count(panel)] or exact or ranked_cells(panel)


def ranked_cells(panel: Panel) -> list[CellView]:
    """The comparable cells whose parity is decided."""
    return [cell for cell in panel.comparable if cell.decided]


def is_exact(cell: CellView) -> bool:
    """Whether the cell's strategy computes what the reference computes, as parity says."""
    return bool(cell.row["parity"] != "inexact")


def model_count(panel: Panel) -> int:
    """How many models the reference runs. Without a reference, the number of the ranked cell that runs fewest."""
    return (panel.base or min(ranked_cells(panel), key=lambda cell: cell.record.models)).record.models


def best_of_each_label(panel: Panel, cells: Sequence[CellView]) -> list[CellView]:
    """Each label's fastest cell, the fastest first."""
    groups = group_by(cells, lambda cell: cell.record.label)
    best = [max(group, key=lambda cell: score(panel, cell)) for group in groups]
    return sorted(best, key=lambda cell: -score(panel, cell))


def tied_cells(panel: Panel, cells: Sequence[CellView], best: CellView) -> list[CellView]:
    """The best cell, and other labels' cells than which it is not measurably faster; the fastest first."""
    close = [
        cell
        for cell in cells
        if cell is best or (cell.record.label != best.record.label and not _is_surely_faster(panel, best, cell))
    ]
    return best_of_each_label(panel, close)


def ranking_figure(panel: Panel) -> str:
    """Speedup, because ratios within rounds vary less than speeds; without a reference there are only speeds."""
    return "speedup" if panel.base is not None else "tokens_per_s"


def score(panel: Panel, cell: CellView) -> float:
    """The cell's value of the ranking figure; higher is better."""
    return cell.value(ranking_figure(panel)) or 0.0


def ranking_interval(panel: Panel, cell: CellView) -> tuple[float, float] | None:
    """The confidence interval of the cell's ranking figure; None after a single round."""
    return cell.interval(ranking_figure(panel))


def memory_ratio(panel: Panel, cell: CellView) -> float | None:
    """A cell's peak memory over that of one device; None where one is unknown, or their intervals overlap."""
    if panel.base is None or cell is panel.base or not cell.memory or not panel.base.memory:
        return None
    bounds, base_bounds = bounds_of(cell.memory), bounds_of(panel.base.memory)
    if bounds is None or base_bounds is None or overlap(bounds, base_bounds):
        return None
    return (cell.value("peak_memory_bytes") or 0.0) / (panel.base.value("peak_memory_bytes") or math.nan)


def bounds_of(summary: Summary) -> tuple[float, float] | None:
    """The summary's confidence interval; None where there is none."""
    return None if summary.low is None or summary.high is None else (summary.low, summary.high)


def _is_surely_faster(panel: Panel, best: CellView, cell: CellView) -> bool:
    """Whether the interval of the ratio of speeds, formed within rounds, lies above 1.

    Cells that share fewer than two rounds are compared by the intervals of their speeds. Nothing is sure of a cell with
    a single round, which an interrupted run may have.
    """
    rounds = sorted(best.speed_by_round.keys() & cell.speed_by_round.keys())
    if len(rounds) > 1:
        ratio = summarise_rounds(
            {number: best.speed_by_round[number] / cell.speed_by_round[number] for number in rounds}
        )
        return ratio.low is not None and ratio.low > 1
    best_interval, interval = ranking_interval(panel, best), ranking_interval(panel, cell)
    return best_interval is not None and interval is not None and not overlap(best_interval, interval)
