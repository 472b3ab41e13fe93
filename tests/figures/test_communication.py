"""How fast exchanges are, by hand."""

import pytest

from parbench.figures.communication import CellExchange, exchanges_of, interpolate
from parbench.records.account import AccountRecord, ExchangeRecord
from parbench.records.machine import CurveRecord, DeviceRecord, MachineRecord, PointRecord
from parbench.records.trial import Trial
from tests.support.records import rank, trial


def exchange(kind: str, *, ranks: int | None = 4, calls: float = 2, given: float | None = 8e6) -> CellExchange:
    """What takes four milliseconds of a step."""
    return CellExchange(kind=kind, axis=None, ranks=ranks, calls=calls, given_bytes=given, seconds=4e-3)


def point(size: int, bandwidth: float) -> PointRecord:
    return PointRecord(
        size=size, seconds=1, low_s=1, high_s=1, samples=9, algorithm_bandwidth=1, bus_bandwidth=bandwidth
    )


MACHINE = MachineRecord(
    measured_at="2026-01-01T00:00:00Z",
    parbench="1",
    backend="gloo",
    device=DeviceRecord(kind="cpu", count=4),
    curves=(CurveRecord(operation="all_reduce", ranks=4, points=(point(10**4, 1e8), point(10**6, 1e10))),),
    environment_digest="e",
)


@pytest.mark.parametrize(
    ("kind", "size", "algorithm", "bus"),
    [
        ("all_reduce", 4e6, 2e9, 3e9),
        ("reduce_scatter", 4e6, 2e9, 1.5e9),
        ("all_gather", 16e6, 8e9, 6e9),
        ("all_to_all", 4e6, 2e9, 1.5e9),
        ("send", 4e6, 2e9, 2e9),
        ("broadcast", 4e6, 2e9, None),
    ],
)
def test_bandwidths_are_those_of_nccl_tests(kind: str, size: float, algorithm: float, bus: float | None) -> None:
    each = exchange(kind)
    assert each.size == pytest.approx(size)
    assert each.algorithm_bandwidth == pytest.approx(algorithm)
    assert each.bus_bandwidth == (None if bus is None else pytest.approx(bus))


@pytest.mark.parametrize(
    "each", [exchange("recv", given=0), exchange("all_reduce", ranks=None, given=None), exchange("all_reduce", ranks=1)]
)
def test_bytes_that_nobody_knows_or_that_pass_no_link_have_no_bandwidth(each: CellExchange) -> None:
    assert (each.size, each.algorithm_bandwidth, each.bus_bandwidth, each.reachable(MACHINE)) == (None,) * 4


def test_the_machines_bandwidth_is_that_of_calls_of_the_same_size_between_as_many_ranks() -> None:
    assert exchange("all_reduce", calls=1, given=1e5).reachable(MACHINE) == pytest.approx(1e9)
    assert exchange("all_reduce", ranks=2).reachable(MACHINE) is None
    assert exchange("all_gather").reachable(MACHINE) is None


@pytest.mark.parametrize(("size", "bandwidth"), [(1, 1e8), (1e4, 1e8), (1e5, 1e9), (1e6, 1e10), (1e9, 1e10)])
def test_between_two_sizes_bandwidth_follows_a_line_of_logarithms(size: float, bandwidth: float) -> None:
    points = MACHINE.curves[0].points
    assert interpolate(points[::-1], size) == pytest.approx(bandwidth)


def launch(*seconds: float, name: str = "all_reduce", axis: str | None = None) -> Trial:
    """A launch with a rank for each time that its calls take."""
    records = [ExchangeRecord(name=name, axis=axis, ranks=2, calls=1, seconds=s, given_bytes=10) for s in seconds]
    accounts = [AccountRecord(steps=1, profiled_s=1, parts={"forward": 1}, exchanges=(each,)) for each in records]
    return trial(ranks=tuple(rank(index, account=account) for index, account in enumerate(accounts)))


def test_the_rank_that_comes_last_tells_how_long_an_exchange_takes() -> None:
    (each,) = exchanges_of([launch(0.5, 0.1), launch(0.3, 0.4), trial()])
    assert (each.seconds, each.calls, each.given_bytes) == (pytest.approx(0.2), 1, 10)


def test_kinds_and_axes_are_told_apart_and_the_longest_comes_first() -> None:
    launches = [launch(0.1), launch(0.2, axis="tensor"), launch(0.3, name="send")]
    assert [(each.kind, each.axis) for each in exchanges_of(launches)] == [
        ("send", None),
        ("all_reduce", "tensor"),
        ("all_reduce", None),
    ]
