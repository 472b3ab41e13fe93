"""What keeps a cell from being as many times as fast as one device as it has devices: losses that add up.

Speeds are tokens/s over those of the base, the reference on one device, in the same round. With N devices,

    N - N·a   is lost to the smaller batch. a: one device with the batch that each device of the cell computes at once
    N·a - b   to contention. b: N independent copies of that at the same time
    s·u       to each part of the step in which nothing is computed: s is its share of the step
    b - u     to the remainder. u = r ÷ (1 - the sum of all s): how fast the cell would be without these parts
    r         is left: the cell's speedup

so that the losses add up to N - r. For example, ddp on 2 devices reaches r = 1.44, exchanges during 15 % of its step
and waits for 5 % of it. With a = 0.95 and b = 1.85, u is 1.44 ÷ 0.80 = 1.80, and of the 0.56 that are lost 0.10 go to
the smaller batch, 0.05 to contention, 0.27 to communication, 0.09 to waiting and 0.05 to the remainder.

A loss may be negative. A batch may be faster for being smaller, because it fits into a cache. And the remainder is
negative where a cell does without what independent copies do, as where each device updates a part of the parameters
only; where it contends less than they do, as where its devices seldom work at the same time; and where one device waits
for its data as well, which is then in `b` and in a loss of its own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple, get_args

from parbench.figures.account import PART_MEANINGS, CellPart, mean_shares
from parbench.figures.base import Launch
from parbench.figures.speed import tokens_per_s
from parbench.figures.statistics import RoundId, Summary, mean_of_round, mean_over_rounds, summarise_rounds

StepLoss = Literal["communication", "waiting", "pipeline", "data"]

Loss = Literal["unsplit", "batch", "contention", StepLoss, "remainder"]

STEP_LOSSES: tuple[StepLoss, ...] = get_args(StepLoss)

LOSS_MEANINGS: Mapping[Loss, str] = {
    "unsplit": "what a smaller batch, contention and all the rest take, which measure.explain: true tells apart",
    "batch": "a device computes a smaller batch at once: measured on one device alone",
    "contention": "devices share memory, caches and cores: measured with independent copies, one on each device",
    **{part: PART_MEANINGS[part] for part in STEP_LOSSES},
    "remainder": "what the strategy itself adds to a step, and what nothing explains; negative where a device does "
    "less than an independent copy, or contends less",
}
"""Every loss, in the order in which tables and charts show them."""


class Copies(NamedTuple):
    """How fast the reference is with the batch of one device: on one, and as independent copies on all of them."""

    alone: float
    together: float


@dataclass(frozen=True)
class Levels:
    """What a waterfall is cut from: speeds over the base's, and the shares of a step in which nothing is computed.

    `copies` is None where they were not measured, `shares` where steps were not accounted for.
    """

    devices: int
    measured: float
    copies: Copies | None = None
    shares: Mapping[StepLoss, float] | None = None

    def losses(self) -> dict[Loss, float]:
        """The losses, which add up to `devices` - `measured`; not all of them are known."""
        shares = self.shares or {}
        without = self.measured / (1 - sum(shares.values()))
        in_step: dict[Loss, float] = {part: share * without for part, share in shares.items()}
        if self.copies is None:
            return {"unsplit": self.devices - without, **in_step}
        alone, together = self.devices * self.copies.alone, self.copies.together
        before: dict[Loss, float] = {"batch": self.devices - alone, "contention": alone - together}
        return {**before, **in_step, "remainder": together - without}

    def knows_as_much_as(self, other: "Levels") -> bool:
        """Whether both are cut into the same losses."""
        return (self.copies is None, self.shares is None) == (other.copies is None, other.shares is None)


@dataclass(frozen=True)
class Waterfall:
    """The way from `devices` times the speed of one device down to the speedup that was `measured`.

    `losses` are in units of the base's speed and add up to the difference. The interval of each is that of the mean
    over rounds, about a loss that is cut from the same geometric means over rounds that the table shows.
    """

    devices: int
    measured: Summary
    losses: Mapping[Loss, Summary]

    @property
    def lost(self) -> float:
        """All losses together."""
        return self.devices - self.measured.mean


def waterfall_of(launches: Sequence[Launch]) -> Waterfall | None:
    """The waterfall of a cell, from all its launches.

    None where its devices do not work on one model, where it has no base, and where nothing explains its speed.
    """
    if not launches or not launches[0].cell.is_spread:
        return None
    rounds: defaultdict[RoundId, list[Launch]] = defaultdict(list)
    for launch in launches:
        if launch.bases:
            rounds[launch.round].append(launch)
    levels = {number: _levels(each) for number, each in rounds.items()}
    if not any(each.copies or each.shares for each in levels.values()):
        return None
    whole = _over_rounds(levels)
    by_round = {number: each.losses() for number, each in levels.items() if each.knows_as_much_as(whole)}
    return Waterfall(
        devices=whole.devices,
        measured=summarise_rounds({number: each.measured for number, each in levels.items()}),
        losses={
            loss: _around(value, {number: losses[loss] for number, losses in by_round.items()})
            for loss, value in whole.losses().items()
        },
    )


def _levels(launches: Sequence[Launch]) -> Levels:
    """Those of one round, from the cell's launches in it."""
    first = launches[0]
    base, measured = _speed(first.bases), _speed(launches)
    alone, together = first.companions
    copies = Copies(_speed(alone) / base, _speed(together) / base) if alone and together else None
    return Levels(first.cell.devices, measured / base, copies, _idle_shares(launches))


def _speed(launches: Sequence[Launch]) -> float:
    return mean_of_round([tokens_per_s(launch.trial, launch.cell) for launch in launches])


def _idle_shares(launches: Sequence[Launch]) -> dict[StepLoss, float] | None:
    shares: Mapping[CellPart, float] = mean_shares(launch.trial for launch in launches)
    idle = {part: shares[part] for part in STEP_LOSSES} if shares else {}
    return idle if sum(idle.values()) < 1 and idle else None


def _over_rounds(levels: Mapping[RoundId, Levels]) -> Levels:
    """Those of all rounds: the geometric means of speeds, and the means of shares."""
    copies = {number: each.copies for number, each in levels.items() if each.copies}
    shares = [each.shares for each in levels.values() if each.shares]
    return Levels(
        devices=next(iter(levels.values())).devices,
        measured=_geometric_mean({number: each.measured for number, each in levels.items()}),
        copies=Copies(
            alone=_geometric_mean({number: each.alone for number, each in copies.items()}),
            together=_geometric_mean({number: each.together for number, each in copies.items()}),
        )
        if copies
        else None,
        shares={part: fmean(each[part] for each in shares) for part in STEP_LOSSES} if shares else None,
    )


def _geometric_mean(values: Mapping[RoundId, float]) -> float:
    return summarise_rounds(values).mean


def _around(value: float, by_round: Mapping[RoundId, float]) -> Summary:
    """The value, with the interval that the mean of the rounds has about itself."""
    if not by_round:
        return Summary(value, None, None)
    mean, low, high = mean_over_rounds(by_round)
    if low is None or high is None:
        return Summary(value, None, None)
    return Summary(value, value + low - mean, value + high - mean)
