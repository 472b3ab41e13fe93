"""The parts of made-up steps, by arithmetic: numbers are nanoseconds."""

from parbench.measure.account.intervals import length
from parbench.measure.account.parts import cut, overlapped
from parbench.measure.account.trace import Trace


def lengths(trace: Trace) -> dict[str, int]:
    return {part: length(moments) for part, moments in cut(trace).items() if moments}


DDP = Trace(
    steps=[(0, 100)],
    marks={
        "data": [(0, 5)],
        "forward": [(5, 40)],
        "loss": [(30, 40)],
        "backward": [(40, 85)],
        "optimizer": [(85, 98)],
    },
    operators=[(1, 3), (6, 28), (31, 39), (42, 60), (61, 70), (84, 85), (86, 97)],
    nodes=[(41, 60), (60, 71)],
    waits=[(60, 61)],
    exchanges={"all_reduce": [(50, 65), (61, 83)]},
)
"""Two buckets: the first is reduced beside the backward pass, the second keeps it waiting from 71 to 83."""


def test_every_moment_of_a_step_belongs_to_one_part() -> None:
    assert lengths(DDP) == {
        "data": 5,
        "forward": 22,
        "loss": 8,
        "backward": 18 + 9 + 1,
        "optimizer": 11,
        "communication": 1 + 12,
        # 5 to 6, 28 to 31, 39 to 42, 70 to 71, 83 to 84, 85 to 86 and 97 to 98
        "host": 1 + 3 + 3 + 1 + 1 + 1 + 1,
        "unexplained": 2,
    }
    assert sum(lengths(DDP).values()) == 100


def test_an_exchange_beside_operators_is_overlapped() -> None:
    parts = cut(DDP)
    # 50 to 83 is exchanging, of which 60 to 61 and 71 to 83 are waits.
    assert length(overlapped(DDP, parts)) == 33 - 13


def test_what_a_schedule_does_not_compute_is_its_bubble() -> None:
    trace = Trace(
        steps=[(0, 100)],
        marks={"pipeline": [(0, 90)], "forward": [(10, 30)], "backward": [(50, 80)], "optimizer": [(90, 100)]},
        operators=[(10, 30), (50, 80), (90, 100)],
        waits=[(0, 9), (31, 49)],
        exchanges={"recv": [(0, 9), (31, 49)]},
    )
    assert lengths(trace) == {"pipeline": 10 + 20 + 10, "forward": 20, "backward": 30, "optimizer": 10}
    assert not overlapped(trace, cut(trace))


def test_a_wait_within_a_stage_is_no_bubble() -> None:
    """In a hybrid, a stage's backward pass also waits for the gradients of other replicas."""
    trace = Trace(
        steps=[(0, 50)],
        marks={"pipeline": [(0, 50)], "backward": [(10, 50)]},
        operators=[(10, 30)],
        nodes=[(10, 31)],
        waits=[],
        exchanges={"all_reduce": [(25, 48)]},
    )
    assert lengths(trace) == {"pipeline": 10, "backward": 20, "communication": 17, "host": 3}


def test_operators_outside_of_known_parts_are_other_work() -> None:
    trace = Trace(steps=[(0, 30)], operators=[(5, 20)])
    assert lengths(trace) == {"other": 15, "unexplained": 15}


def test_a_backward_pass_without_nodes_has_no_end_to_wait_in() -> None:
    trace = Trace(steps=[(0, 10)], marks={"backward": [(0, 10)]}, exchanges={"all_reduce": [(0, 10)]})
    assert lengths(trace) == {"host": 10}


ON_GPU = Trace(
    steps=[(0, 40), (40, 60)],
    marks={"data": [(0, 4)], "forward": [(4, 10)], "backward": [(10, 20)], "optimizer": [(20, 24)]},
    exchanges={"all_reduce": [(50, 75)]},
    kernels=[((8, 30), 5), ((30, 60), 12), ((75, 85), 21), ((90, 100), 39)],
)
"""The host runs ahead: what it launches in 60 ns keeps the device busy until 100."""


def test_kernels_belong_to_the_part_that_launched_them() -> None:
    assert lengths(ON_GPU) == {
        "forward": 22,
        "backward": 30,
        "optimizer": 10,
        "other": 10,
        "communication": 75 - 60,
        "data": 4,
        "host": 4,
        "unexplained": 5,
    }
    assert sum(lengths(ON_GPU).values()) == 100


def test_on_a_gpu_an_exchange_beside_kernels_is_overlapped() -> None:
    assert length(overlapped(ON_GPU, cut(ON_GPU))) == 10
