"""How fast a cell's exchanges are, beside what the machine reached when it exchanged and did nothing else."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log
from statistics import fmean

from parbench.figures.curves import algorithm_bandwidth, bus_bandwidth
from parbench.records.account import ExchangeRecord
from parbench.records.curves import Operation
from parbench.records.machine import MachineRecord, PointRecord
from parbench.records.trial import Trial

OPERATIONS: Mapping[str, Operation] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "all_to_all",
    "send": "p2p",
}
"""Kinds of exchange, and the operation of a machine's curves that each is."""


@dataclass(frozen=True, kw_only=True)
class CellExchange:
    """What a rank exchanges in a step, of one kind and over one axis of a mesh, where that has names.

    `calls` and `given_bytes` are those of the rank that makes most of them. `seconds` are those of the rank whose calls
    take shortest, the mean over launches: the last one to come waits for no other.
    """

    kind: str
    axis: str | None
    ranks: int | None
    calls: float
    given_bytes: float | None
    seconds: float

    @property
    def size(self) -> float | None:
        """Bytes of a call's whole tensor, as nccl-tests defines them: of all ranks' parts where each gives one.

        None where they are unknown, and where a rank is alone in its group, so that nothing passes a link.
        """
        if not self.given_bytes or self.ranks in (None, 1):
            return None
        return self.given_bytes / self.calls * (self.ranks if self.kind == "all_gather" else 1)

    @property
    def algorithm_bandwidth(self) -> float | None:
        """Bytes per second while something of this is exchanged, by size; None where that, or the time, is unknown."""
        return algorithm_bandwidth(self.size * self.calls, self.seconds) if self.size and self.seconds else None

    @property
    def bus_bandwidth(self) -> float | None:
        """The same by the bytes that pass the busiest link; None for kinds that the machine has no curve of."""
        operation = OPERATIONS.get(self.kind)
        if operation is None or not self.size or not self.ranks or not self.seconds:
            return None
        return bus_bandwidth(operation, self.ranks, self.size * self.calls, self.seconds)

    def reachable(self, machine: MachineRecord) -> float | None:
        """The bus bandwidth that the machine reached with calls of this size; None where it has no such curve."""
        operation = OPERATIONS.get(self.kind)
        curve = machine.curve(operation, self.ranks) if operation and self.ranks else None
        return interpolate(curve.points, self.size) if curve and self.size else None


def exchanges_of(trials: Iterable[Trial]) -> list[CellExchange]:
    """What a cell exchanges in a step, by the accounts of its launches; the kind that takes longest first."""
    launches = [each for trial in trials if (each := _by_line(trial))]
    lines = dict.fromkeys(line for launch in launches for line in launch)
    exchanges = [_sum_up(line, [launch[line] for launch in launches if line in launch]) for line in lines]
    return sorted(exchanges, key=lambda each: -each.seconds)


def interpolate(points: Iterable[PointRecord], size: float) -> float:
    """The bus bandwidth at this size, in bytes per second: between two sizes along a line of both logarithms.

    Below the smallest size and above the largest it is theirs.
    """
    ordered = sorted(points, key=lambda point: point.size)
    if size <= ordered[0].size:
        return ordered[0].bus_bandwidth
    for low, high in pairwise(ordered):
        if size <= high.size:
            share = log(size / low.size) / log(high.size / low.size)
            return exp((1 - share) * log(low.bus_bandwidth) + share * log(high.bus_bandwidth))
    return ordered[-1].bus_bandwidth


_Line = tuple[str, str | None, int | None]


def _by_line(trial: Trial) -> dict[_Line, list[ExchangeRecord]]:
    """The records of one launch's ranks."""
    records: defaultdict[_Line, list[ExchangeRecord]] = defaultdict(list)
    for rank in trial.ranks:
        for record in rank.account.exchanges if rank.account else ():
            records[record.name, record.axis, record.ranks].append(record)
    return dict(records)


def _sum_up(line: _Line, launches: list[list[ExchangeRecord]]) -> CellExchange:
    kind, axis, ranks = line
    records = [record for launch in launches for record in launch]
    sizes = [record.given_bytes for record in records if record.given_bytes is not None]
    return CellExchange(
        kind=kind,
        axis=axis,
        ranks=ranks,
        calls=max(record.calls for record in records),
        given_bytes=max(sizes, default=None),
        seconds=fmean(min(record.seconds for record in launch) for launch in launches),
    )
