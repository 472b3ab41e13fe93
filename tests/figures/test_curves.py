"""A machine's curves by hand arithmetic, as nccl-tests defines bandwidths."""

import pytest

from parbench.figures.curves import bus_bandwidth, bus_factor, fit_line, summarise_curves
from parbench.records.curves import CurvesRecord, Operation, SampleRecord
from parbench.records.machine import CurveRecord, PointRecord


def found(operation: Operation, size: int, *seconds: float, **more: object) -> CurvesRecord:
    """What one rank found of one operation at one size."""
    return CurvesRecord(samples=(SampleRecord(operation=operation, size=size, seconds=seconds),), **more)


def curve(operation: Operation, ranks: int, *launches: list[CurvesRecord]) -> CurveRecord:
    return next(each for each in summarise_curves(ranks, launches) if each.operation == operation)


@pytest.mark.parametrize(
    ("operation", "of_two", "of_four"),
    [
        ("all_reduce", 1.0, 1.5),
        ("all_gather", 0.5, 0.75),
        ("reduce_scatter", 0.5, 0.75),
        ("all_to_all", 0.5, 0.75),
        ("p2p", 1.0, 1.0),
    ],
)
def test_the_bus_carries_so_many_bytes_for_each_byte_of_the_tensor(operation, of_two, of_four):
    assert (bus_factor(operation, 2), bus_factor(operation, 4)) == (of_two, of_four)


def test_bus_bandwidth_is_what_a_link_carries_in_a_second():
    assert bus_bandwidth("all_reduce", 4, 8e6, 0.004) == pytest.approx(3e9)
    assert bus_bandwidth("all_gather", 2, 8e6, 0.004) == pytest.approx(1e9)


def test_a_call_takes_as_long_as_on_the_slowest_rank_of_its_visit():
    one, other = found("all_reduce", 1000, 1.0, 5.0, 2.0), found("all_reduce", 1000, 2.0, 1.0, 3.0)
    (point,) = curve("all_reduce", 2, [one, other]).points
    assert (point.seconds, point.samples) == (3.0, 3)  # the median of 2, 5 and 3
    assert (point.algorithm_bandwidth, point.bus_bandwidth) == (333.3, 333.3)
    assert (point.low_s, point.high_s) == (2.2, 4.6)


def test_visits_of_all_launches_count():
    (point,) = curve("p2p", 2, [found("p2p", 1000, 1.0)], [found("p2p", 1000, 9.0)], [found("p2p", 1000, 2.0)]).points
    assert (point.seconds, point.samples) == (2.0, 3)


def test_what_there_is_none_of_has_a_reason():
    refused = CurvesRecord(unavailable={"all_to_all": "RuntimeError: not here"})
    assert curve("all_to_all", 2, [refused, refused]) == CurveRecord(
        operation="all_to_all", ranks=2, unavailable="RuntimeError: not here"
    )


def test_a_size_is_left_out_unless_another_launch_had_the_time_for_it():
    short = found("p2p", 1024, 1.0, too_long={"p2p": 4096})
    long = found("p2p", 4096, 1.0, too_long={"p2p": 16384})
    assert curve("p2p", 2, [short]).left_out == "from 4,096 bytes on it did not fit into the time"
    assert curve("p2p", 2, [short], [long]).left_out == "from 16,384 bytes on it did not fit into the time"
    assert curve("p2p", 2, [found("p2p", 1024, 1.0)]).left_out is None


def point(size: int, seconds: float) -> PointRecord:
    return PointRecord(
        size=size, seconds=seconds, low_s=seconds, high_s=seconds, samples=1, algorithm_bandwidth=1.0, bus_bandwidth=1.0
    )


def test_a_line_has_the_latency_and_the_bandwidth_of_the_bus():
    sizes = (1024, 2**16, 2**22, 2**28)
    points = [point(size, 5e-5 + 1.5 * size / 2e9) for size in sizes]
    fit = fit_line("all_reduce", 4, points)
    assert fit is not None
    assert (fit.latency_s, fit.bus_bandwidth) == (pytest.approx(5e-5, rel=1e-3), pytest.approx(2e9, rel=1e-3))
    assert fit.residual < 1e-6


def test_the_residual_is_what_the_line_is_wrong_by():
    # A tenth above and below 2 ms at 1 kB and 9 ms at 8 kB; p ÷ 0.9 and p ÷ 1.1 are nearest to 1 for p = 0.98.
    points = [point(1000, 1.8e-3), point(1000, 2.2e-3), point(8000, 8.1e-3), point(8000, 9.9e-3)]
    fit = fit_line("p2p", 2, points)
    assert fit is not None
    assert fit.residual == pytest.approx(0.0995, abs=1e-4)


def test_without_enough_points_or_growth_there_is_no_line():
    assert fit_line("p2p", 2, [point(1000, 1.0), point(2000, 2.0)]) is None, "two points are met by any line"
    assert fit_line("p2p", 2, [point(1000, 3.0), point(2000, 2.0), point(4000, 1.0)]) is None


def test_small_sizes_tell_the_latency_though_large_ones_take_a_thousand_times_as_long():
    points = [point(1024, 1e-4), point(4096, 1e-4), point(2**28, 0.21), point(2**28, 0.19)]
    fit = fit_line("p2p", 2, points)
    assert fit is not None
    assert fit.latency_s == pytest.approx(1e-4, rel=0.1)
    assert fit.bus_bandwidth == pytest.approx(2**28 / 0.2, rel=0.1)
