"""What the ranks of a machine's curves decide, without ranks: which sizes fit, what there is, and what is recorded."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from parbench.measure import curves
from parbench.measure.clock import Timing
from parbench.measure.curves import Exchanges, Point, measure_rates
from parbench.measure.probes import copying
from parbench.measure.probes.exchange import prepare_exchange
from parbench.measure.probes.traffic import CollectiveCounter
from parbench.measure.team import Team
from parbench.records.curves import CurvesAssignment, CurvesRecord, Operation

CPU = torch.device("cpu")
THERE: tuple[Operation, ...] = ("all_reduce", "p2p")


def exchanges(*, visits: int = 1, budget_s: float = 600.0) -> Exchanges:
    assignment = CurvesAssignment(
        device_kind="cpu",
        threads=1,
        cores=(),
        matmul=(),
        sizes=(4, 8, 16),
        visits=visits,
        seed=0,
        budget_s=budget_s,
        deadline_s=600.0,
    )
    return Exchanges(assignment, Team(None, CPU), CPU)


@pytest.fixture
def two_operations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Operation, int]]:
    """A backend that has two operations, which do nothing; each call of them is kept, with its size."""
    calls: list[tuple[Operation, int]] = []

    def prepare(operation: Operation, given: Tensor, received: Tensor) -> Callable[[], object]:
        assert len(given) == len(received)
        if operation not in THERE:
            raise RuntimeError(f"no {operation} here\nand much more")
        return lambda: calls.append((operation, given.nbytes))

    monkeypatch.setattr(curves, "prepare_exchange", prepare)
    return calls


def test_a_size_is_taken_up_as_long_as_all_visits_fit_into_the_time(
    two_operations: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A call takes a second a byte. A visit has two calls, and four come before the first one.
    monkeypatch.setattr(Exchanges, "_try", lambda _, operation, size: Point(operation, size, 1, float(size)))
    monkeypatch.setattr(Exchanges, "_elapsed_s", lambda _: 0.0)
    mine = exchanges(budget_s=80.0)
    # For p2p at 8 bytes: 2 × (4 + 4 + 8) s of visits to the others, and 6 × 8 s of its own.
    assert [point[:2] for point in mine.choose_points()] == [
        ("all_reduce", 4), ("p2p", 4), ("all_reduce", 8), ("p2p", 8)
    ]  # fmt: skip
    assert mine.too_long == {"all_reduce": 16, "p2p": 16}
    short = exchanges(budget_s=79.0)
    assert len(short.choose_points()) == 3
    assert short.too_long == {"all_reduce": 16, "p2p": 8}


def test_what_the_backend_lacks_is_told_and_left_out(two_operations: list[tuple[Operation, int]]) -> None:
    record = exchanges().measure()
    assert record.unavailable == {
        name: f"RuntimeError: no {name} here" for name in ("all_gather", "reduce_scatter", "all_to_all")
    }
    assert {operation for operation, _ in two_operations} == set(THERE)


def test_every_size_has_a_time_for_every_visit_in_an_order_that_changes(
    two_operations: list[tuple[Operation, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exchanges, "_try", lambda _, operation, size: Point(operation, size, 1, 0.0))
    record = exchanges(visits=4).measure()
    assert [(sample.operation, sample.size) for sample in record.samples] == [
        (operation, size) for size in (4, 8, 16) for operation in THERE
    ]
    assert {len(sample.seconds) for sample in record.samples} == {4}
    # After the first call of each operation, a visit is one call to warm up and one that is timed.
    visits = two_operations[2::2]
    assert visits == two_operations[3::2]
    rounds = [visits[first : first + 6] for first in range(0, len(visits), 6)]
    assert len(rounds) == 4
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1


def test_a_long_call_is_one_visit_and_short_ones_fill_it(
    two_operations: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = exchanges()
    for seconds, calls in ((1.0, 1), (0.02, 1), (0.001, 20), (1e-9, curves.MAX_CALLS)):
        monkeypatch.setattr(mine, "_time", lambda call, count, each=seconds: each * count)
        assert mine._try("p2p", 8) == Point("p2p", 8, calls, pytest.approx(seconds))


def test_a_precision_that_the_device_lacks_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def multiply(device: torch.device, precision: str) -> float:
        if precision == "fp16":
            raise RuntimeError("no such product")
        return 1e9

    monkeypatch.setattr(curves, "measure_matmul_flops", multiply)
    monkeypatch.setattr(curves, "measure_copy_rate", lambda device: 2e9)
    assert measure_rates(("fp32", "fp16", "bf16"), CPU) == CurvesRecord(
        matmul_flops={"fp32": 1e9, "bf16": 1e9},
        copy_bytes_per_s=2e9,
        unavailable={"fp16": "RuntimeError: no such product"},
    )


def test_a_copy_reads_and_writes_each_byte_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((3.0, 0.5, 1.0, 1.0, 1.0, 1.0))
    monkeypatch.setattr(copying, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(copying, "time_steps", lambda *_: Timing(next(seconds), ()))
    assert copying.measure_copy_rate(CPU) == 2 * 1000 / 0.5


@pytest.mark.parametrize(
    ("operation", "given_bytes"),
    [("all_reduce", 1024), ("all_gather", 256), ("reduce_scatter", 1024), ("all_to_all", 1024), ("p2p", 1024)],
)
def test_a_rank_hands_over_the_tensor_or_its_part_of_it(operation: Operation, given_bytes: int) -> None:
    distributed.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    try:
        exchange = prepare_exchange(operation, torch.zeros(256), torch.zeros(256))
        with CollectiveCounter() as counter:
            exchange()
        assert sum(call.given_bytes for call in counter.calls) == given_bytes
        assert {call.ranks for call in counter.calls} == {4}
    finally:
        distributed.destroy_process_group()
