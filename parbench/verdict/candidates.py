"""Which cells may win: those that a user can use, and that did what the reference does. And why the others may not."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from parbench.figures.memory import PEAK_MEMORY_BYTES
from parbench.figures.speed import SPEEDUP, TOKENS_PER_S
from parbench.results.judged_cells import JudgedCell
from parbench.verdict.rounds import summary, summary_text

OBSTACLES: Mapping[str, Callable[[JudgedCell], bool]] = {
    "not comparable": lambda cell: not cell.comparable,
    "of undecided parity": lambda cell: cell.parity.word == "undecided",
    "emulated": lambda cell: cell.record.emulated,
    "oversubscribed": lambda cell: cell.record.oversubscribed,
    "inexact": lambda cell: cell.parity.word == "inexact",
}
"""What keeps a cell from winning, whatever its figures are; of several, the first is said."""

SEVERAL_MODELS = "with several models"
OTHER_WORK = ("inexact", SEVERAL_MODELS)
"""Cells that do something else than the reference, and do it well: they are named beside the winner."""


def panels_of(cells: Sequence[JudgedCell]) -> list[list[JudgedCell]]:
    """The cells that may be compared with each other: of the same workload, phase and scaling; in the run's order."""
    panels: defaultdict[tuple[str, str, str], list[JudgedCell]] = defaultdict(list)
    for cell in cells:
        panels[cell.record.workload, cell.record.phase, cell.record.scaling].append(cell)
    return list(panels.values())


def candidates_and_others(cells: Sequence[JudgedCell]) -> tuple[list[JudgedCell], dict[str, list[JudgedCell]]]:
    """The cells that may win, and the others by what keeps them from it."""
    obstacles = [_obstacle(cell) for cell in cells]
    free = [cell for cell, obstacle in zip(cells, obstacles, strict=True) if obstacle is None]
    models = model_count(cells, free)
    candidates = [cell for cell in free if cell.record.models == models]
    others: defaultdict[str, list[JudgedCell]] = defaultdict(list)
    for cell, obstacle in zip(cells, obstacles, strict=True):
        if obstacle or cell.record.models != models:
            others[obstacle or SEVERAL_MODELS].append(cell)
    return candidates, others


def base_of(cells: Sequence[JudgedCell]) -> JudgedCell | None:
    """The reference on one device, which ratios are over; None where it is not comparable."""
    names = {cell.base.record.id for cell in cells if cell.base}
    return next((cell for cell in cells if cell.record.id in names), None)


def model_count(cells: Sequence[JudgedCell], free: Sequence[JudgedCell]) -> int:
    """How many models the reference runs. Without a reference, the number of the cell that runs fewest."""
    base = base_of(cells)
    return base.record.models if base else min((cell.record.models for cell in free), default=1)


def speed(cell: JudgedCell) -> float:
    """What cells are ranked by: the speedup, or tokens/s where there is no base."""
    return summary(cell, SPEEDUP if cell.base else TOKENS_PER_S).mean


def amount(cell: JudgedCell) -> str:
    """The cell's speed with its interval, such as `1.93× [1.91, 1.95]`."""
    return summary_text(cell, SPEEDUP) if cell.base else tokens_per_s(cell)


def tokens_per_s(cell: JudgedCell) -> str:
    """The cell's tokens/s with their interval."""
    return f"{summary_text(cell, TOKENS_PER_S)} tokens/s"


def memory(cell: JudgedCell) -> float:
    """Peak memory of the fullest rank in bytes; NaN where it is unknown."""
    return summary(cell, PEAK_MEMORY_BYTES).mean


def _obstacle(cell: JudgedCell) -> str | None:
    if cell.status != "ok":
        return cell.status.replace("_", " ")
    return next((name for name, applies in OBSTACLES.items() if applies(cell)), None)
