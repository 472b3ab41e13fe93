"""What a chart does with more cells than can be told apart: when that is so, which it draws, and in which order."""

from collections.abc import Iterable, Sequence

from parbench.report.panels import CellView, group_by

MAX_LINES = 8
"""More lines than this in one plot, each of a look of its own, are a tangle."""

MAX_ROWS = 40
"""More rows than this are drawn only where every cell is the point of the chart."""


def is_crowded(cells: Iterable[CellView]) -> bool:
    """Whether the cells have more labels than one plot can show as lines."""
    return len({cell.record.label for cell in cells}) > MAX_LINES


def choose_cells(cells: Sequence[CellView], most: int = MAX_ROWS) -> list[CellView]:
    """All cells, or of more than `most` the fastest of each label, and of those the `most` fastest."""
    if len(cells) <= most:
        return list(cells)
    fastest = [max(group, key=speed_of) for group in group_by(cells, lambda cell: cell.record.label)]
    return sorted(fastest, key=speed_of, reverse=True)[:most]


def rank_by_strategy(cells: Sequence[CellView]) -> list[CellView]:
    """The cells of each strategy together, the fastest first; strategies by their fastest cell."""
    groups = group_by(sorted(cells, key=speed_of, reverse=True), lambda cell: cell.record.strategy)
    return [cell for group in groups for cell in group]


def say_chosen(drawn: int, count: int) -> str:
    """A sentence on which of `count` cells are drawn; empty where all are."""
    if drawn == count:
        return ""
    return f" Drawn: the fastest cell of each strategy and its options, {drawn} of {count}; the table of cells has all."


def speed_of(cell: CellView) -> float:
    """What cells are ranked by: tokens/s, and less than any speed where there is none."""
    speed = cell.value("tokens_per_s")
    return -1.0 if speed is None else speed
