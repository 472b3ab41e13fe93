"""How evenly routers spread tokens over experts, and what finds no room."""

from collections.abc import Iterable
from statistics import fmean

from parbench.figures.base import Figure
from parbench.records.routing import RoutingRecord
from parbench.records.trial import Trial


def expert_imbalance(trial: Trial) -> float | None:
    """The tokens of the fullest expert of a layer ÷ the mean over its experts; the mean over layers and models.

    Tokens of all ranks of a model count together. None without experts.
    """
    by_lane: dict[int, list[RoutingRecord]] = {}
    for rank in trial.ranks:
        if rank.routing:
            by_lane.setdefault(rank.lane, []).append(rank.routing)
    layers = [choices for records in by_lane.values() for choices in _choices_by_layer(records)]
    return fmean(max(choices) / fmean(choices) for choices in layers) if layers else None


def dropped_share(trial: Trial) -> float | None:
    """The share of tokens' choices that found no room with their expert, over all ranks; None without experts."""
    records = [rank.routing for rank in trial.ranks if rank.routing]
    total = sum(sum(layer) for record in records for layer in record.choices)
    return sum(record.dropped for record in records) / total if total else None


def _choices_by_layer(records: Iterable[RoutingRecord]) -> list[list[int]]:
    """Of each layer, how many tokens of all records chose each expert; layers that no token passed are left out."""
    layers = zip(*(record.choices for record in records), strict=True)
    summed = ([sum(counts) for counts in zip(*layer, strict=True)] for layer in layers)
    return [choices for choices in summed if any(choices)]


EXPERT_IMBALANCE = Figure(
    name="expert_imbalance",
    title="imbalance of experts",
    unit="×",
    better="lower",
    meaning="The tokens that choose the fullest expert of a layer ÷ those of an expert on average, the mean over "
    "layers; the median over rounds. From a step after the window. 1 is even; devices that hold the fuller experts "
    "compute for longer, and the others wait.",
    of=lambda launch: expert_imbalance(launch.trial),
    portable=True,
)

DROPPED_SHARE = Figure(
    name="dropped_share",
    title="dropped",
    unit="%",
    better="lower",
    meaning="The share of tokens' choices of an expert that find no room there, where experts have a capacity; the "
    "median over rounds. From a step after the window.",
    of=lambda launch: dropped_share(launch.trial),
    portable=True,
)

FIGURES = (EXPERT_IMBALANCE, DROPPED_SHARE)
