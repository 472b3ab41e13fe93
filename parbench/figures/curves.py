"""A machine's curves: bandwidths as nccl-tests defines them, the slowest rank's times, and latency and bandwidth."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import get_args

from parbench.records.curves import CurvesRecord, Operation
from parbench.records.machine import CurveRecord, FitRecord, PointRecord

LaunchRecords = Sequence[CurvesRecord]
"""What each rank of one launch found."""

FITTED_POINTS = 3
"""Fewer points would be met exactly by two numbers, whatever they are."""

DIGITS = 4


def bus_factor(operation: Operation, ranks: int) -> float:
    """Bytes that pass the busiest rank's link for each byte of the tensor, at best, whichever algorithm is used.

    That is 2 (n − 1)/n for all-reduce, (n − 1)/n for all-gather, reduce-scatter and all-to-all, and 1 for sending to
    one other rank (NVIDIA/nccl-tests, doc/PERFORMANCE.md, "Bus bandwidth").
    """
    match operation:
        case "all_reduce":
            return 2 * (ranks - 1) / ranks
        case "all_gather" | "reduce_scatter" | "all_to_all":
            return (ranks - 1) / ranks
        case "p2p":
            return 1.0


def algorithm_bandwidth(size: float, seconds: float) -> float:
    """Bytes of the whole tensor ÷ seconds (NVIDIA/nccl-tests, doc/PERFORMANCE.md, "Algorithm bandwidth")."""
    return size / seconds


def bus_bandwidth(operation: Operation, ranks: int, size: float, seconds: float) -> float:
    """Algorithm bandwidth × bus factor, in bytes per second: to be compared with a link's, for any number of ranks.

    For example an all-reduce of 8 MB between 4 ranks in 4 ms has 2 GB/s by algorithm and 3 GB/s on the bus.
    """
    return algorithm_bandwidth(size, seconds) * bus_factor(operation, ranks)


def summarise_curves(ranks: int, launches: Sequence[LaunchRecords]) -> Iterator[CurveRecord]:
    """The curve of each operation between so many ranks, over all visits of all launches."""
    records = [record for launch in launches for record in launch]
    for operation in get_args(Operation):
        refusals = (record.unavailable[operation] for record in records if operation in record.unavailable)
        sizes = [record.too_long[operation] for record in records if operation in record.too_long]
        times = _slowest_times(operation, launches)
        points = tuple(_point(operation, ranks, size, times[size]) for size in sorted(times))
        # Of a size that one launch left out, others may have samples.
        left_out = next((size for size in sorted(sizes) if size not in times), None)
        yield CurveRecord(
            operation=operation,
            ranks=ranks,
            points=points,
            fit=fit_line(operation, ranks, points),
            unavailable=next(refusals, None),
            left_out=f"from {left_out:,} bytes on it did not fit into the time" if left_out else None,
        )


def fit_line(operation: Operation, ranks: int, points: Sequence[PointRecord]) -> FitRecord | None:
    """Latency and bus bandwidth by least squares of relative errors, neither below zero; None for too few points.

    Of absolute errors only those of the largest sizes would count, and none tells of the latency.
    """
    if len(points) < FITTED_POINTS:
        return None
    import numpy as np
    from scipy.optimize import nnls

    seconds = np.array([point.seconds for point in points])
    volumes = bus_factor(operation, ranks) * np.array([float(point.size) for point in points])
    scale = volumes.max()
    predictors = np.column_stack([np.ones_like(seconds), volumes / scale]) / seconds[:, None]
    (latency_s, slowness), distance = nnls(predictors, np.ones_like(seconds))
    if slowness == 0:
        return None
    return FitRecord(
        latency_s=rounded(latency_s),
        bus_bandwidth=rounded(scale / slowness),
        residual=rounded(distance / math.sqrt(len(points))),
    )


def _slowest_times(operation: Operation, launches: Sequence[LaunchRecords]) -> dict[int, list[float]]:
    """The slowest rank's seconds of every visit, by size."""
    times: defaultdict[int, list[float]] = defaultdict(list)
    for launch in launches:
        of_ranks: defaultdict[int, list[tuple[float, ...]]] = defaultdict(list)
        for record in launch:
            for sample in record.samples:
                if sample.operation == operation:
                    of_ranks[sample.size].append(sample.seconds)
        for size, seconds in of_ranks.items():
            times[size] += [max(visit) for visit in zip(*seconds, strict=True)]
    return times


def _point(operation: Operation, ranks: int, size: int, seconds: Sequence[float]) -> PointRecord:
    from numpy import quantile

    typical = statistics.median(seconds)
    low, high = quantile(seconds, [0.1, 0.9])
    return PointRecord(
        size=size,
        seconds=rounded(typical),
        low_s=rounded(low),
        high_s=rounded(high),
        samples=len(seconds),
        algorithm_bandwidth=rounded(algorithm_bandwidth(size, typical)),
        bus_bandwidth=rounded(bus_bandwidth(operation, ranks, size, typical)),
    )


def rounded(number: float) -> float:
    """What people read in the file: no more digits than are meant."""
    return float(f"{number:.{DIGITS}g}")
