"""What a cell loses on the way from ideal speedup to its own, in words, and what would win back most of it."""

from collections.abc import Callable, Mapping

from parbench.figures.account import exchanges_by_time
from parbench.figures.statistics import Summary
from parbench.figures.traffic import COMMUNICATED_BYTES
from parbench.figures.waterfall import Loss
from parbench.results.judged_cells import JudgedCell
from parbench.verdict.lines import Phrase, listing, phrase
from parbench.verdict.rounds import summary

WORTH_NAMING = 0.02
"""In units of the speed of one device."""

_MOST_NAMED = 3


def _exchanged(cell: JudgedCell) -> str:
    """Such as `2.3 MiB of all-reduce that nothing overlaps`."""
    sent = summary(cell, COMMUNICATED_BYTES).mean
    kinds = [name.replace("_", "-") for name in exchanges_by_time(cell.trials)][:2]
    size = f"{COMMUNICATED_BYTES.text(sent)} of " if sent > 0 else ""
    return f"{size}{' and '.join(kinds) or 'communication'} that nothing overlaps"


_WORDS: Mapping[Loss, Callable[[JudgedCell], str]] = {
    "unsplit": lambda _: "a smaller batch, contention and the rest",
    "batch": lambda _: "the smaller batch",
    "contention": lambda _: "contention for memory and cores",
    "communication": _exchanged,
    "waiting": lambda _: "waiting for slower ranks",
    "pipeline": lambda _: "the pipeline's bubble",
    "data": lambda _: "waiting for data",
    "remainder": lambda _: "what the strategy adds or nothing explains",
}
"""What something is lost to."""

_ADVICE: Mapping[Loss, str] = {
    "unsplit": "measure.explain: true tells these apart",
    "batch": "a larger batch would win back most",
    "contention": "only devices that share less would win back most",
    "communication": "fewer bytes, or exchanges while something is computed, would win back most",
    "waiting": "ranks with equal work would win back most",
    "pipeline": "more micro-batches, or stages that take equally long, would win back most",
    "data": "batches that are ready in time would win back most",
    "remainder": "the trace of a step (parbench run --trace) shows more",
}
"""What to do about the largest loss."""


def named_losses(cell: JudgedCell) -> list[tuple[Loss, float]]:
    """The losses of a cell that are worth naming and more than luck, the largest first."""
    if cell.waterfall is None:
        return []
    sure = [(loss, lost.mean) for loss, lost in cell.waterfall.losses.items() if _is_sure(lost)]
    return sorted(sure, key=lambda each: -each[1])


def list_losses(cell: JudgedCell, most: int = _MOST_NAMED) -> Phrase:
    """Such as `0.12 to the smaller batch and 0.10 to contention for memory and cores`; empty where none is sure."""
    named = named_losses(cell)[:most]
    return listing([(f"{lost:.2f} to {_WORDS[loss](cell)}",) for loss, lost in named]) if named else ()


def say_losses(cell: JudgedCell, subject: Phrase) -> Phrase:
    """The sentence on a cell, which it calls `subject`; empty where it loses nothing, or nothing tells what."""
    waterfall = cell.waterfall
    if waterfall is None or waterfall.lost < WORTH_NAMING:
        return ()
    total = f"{waterfall.lost:.2f}× of {waterfall.devices}×"
    named = named_losses(cell)
    if not named:
        return phrase("{} loses {}, and so few rounds do not tell to what.", subject, total)
    return phrase("{} loses {}: {}; {}.", subject, total, list_losses(cell), _ADVICE[named[0][0]])


def _is_sure(lost: Summary) -> bool:
    return lost.mean >= WORTH_NAMING and lost.low is not None and lost.low > 0
