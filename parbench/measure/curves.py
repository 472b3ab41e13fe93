"""One rank of a launch that measures the machine and trains nothing: device rates, and times of operations by size.

By hand, in the folder of such a launch: `torchrun --nproc-per-node N -m parbench.measure.curves .`
"""

import itertools
import math
import random
import socket
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from torch import distributed

from parbench.base_types import Precision
from parbench.errors import first_words
from parbench.measure.clock import time_steps
from parbench.measure.journal import Journal
from parbench.measure.probes.copying import measure_copy_rate
from parbench.measure.probes.exchange import prepare_exchange
from parbench.measure.probes.matmul import measure_matmul_flops
from parbench.measure.rank import run_as_rank
from parbench.measure.team import Team, join_process_group, pin_to, set_precision
from parbench.records.curves import CURVES_FILE, CurvesAssignment, CurvesRecord, Operation, SampleRecord

VISIT_S, MAX_CALLS = 0.02, 1000
"""How long the calls of one visit take together, and how many there are at most; a long call is one visit."""

TRIED_CALLS = 2
"""Calls before the first visit of a size: so many to warm up, and so many to find out how long one takes."""


def work(folder: Path, listener: socket.socket | None = None) -> int:
    """Measures what `folder/curves.json` assigns, as the rank that torchrun's environment variables name.

    Returns the exit code, as `run_as_rank` does.
    """
    return run_as_rank(folder, lambda journal: _measure(folder, listener, journal))


def _measure(folder: Path, listener: socket.socket | None, journal: Journal) -> None:
    assignment = CurvesAssignment.model_validate_json((folder / CURVES_FILE).read_text())
    local_rank = journal.record.local_rank
    device = torch.device("cuda", local_rank) if assignment.device_kind == "cuda" else torch.device("cpu")
    cpus = assignment.cores[local_rank] if assignment.cores else ()
    pin_to(device, cpus, assignment.threads)
    journal.write(threads=assignment.threads, cores=cpus)
    journal.enter("join")
    join_process_group(device, timedelta(seconds=assignment.deadline_s), listener)
    team = Team(distributed.group.WORLD, device)
    team.meet()
    journal.write(met_at=time.monotonic())
    journal.enter("curves")
    alone = distributed.get_world_size() == 1
    record = measure_rates(assignment.matmul, device) if alone else Exchanges(assignment, team, device).measure()
    journal.write(curves=record)
    team.meet()
    distributed.destroy_process_group()
    journal.enter("done")


def measure_rates(precisions: Sequence[Precision], device: torch.device) -> CurvesRecord:
    """How fast one device computes matrix products, in each of these precisions, and copies memory."""
    flops: dict[Precision, float] = {}
    unavailable: dict[str, str] = {}
    for precision in precisions:
        if device.type == "cuda":
            set_precision(precision)
        try:
            flops[precision] = measure_matmul_flops(device, precision)
        except RuntimeError as error:
            unavailable[precision] = first_words(error)
    return CurvesRecord(matmul_flops=flops, copy_bytes_per_s=measure_copy_rate(device), unavailable=unavailable)


class Point(NamedTuple):
    """An operation on `size` bytes: how many calls a visit has, and about how many seconds one takes."""

    operation: Operation
    size: int
    calls: int
    call_s: float

    @property
    def visit_s(self) -> float:
        """The seconds that a visit takes, with the call before it."""
        return (1 + self.calls) * self.call_s

    def scaled_s(self, size: int) -> float:
        """The seconds that a call on `size` bytes takes if time grows as the size does."""
        return self.call_s * size / self.size


class Exchanges:
    """Times operations between all ranks. Whatever decides which call comes next is the same on all of them."""

    def __init__(self, assignment: CurvesAssignment, team: Team, device: torch.device) -> None:
        self.assignment = assignment
        self.team = team
        self.device = device
        largest = max(assignment.sizes) // 4
        # Written once: memory that nothing has written is not there yet.
        self._given, self._received = (torch.empty(largest, device=device).zero_() for _ in range(2))
        self._started = time.monotonic()
        self.unavailable: dict[str, str] = {}
        self.too_long: dict[Operation, int] = {}

    def measure(self) -> CurvesRecord:
        """Chooses what fits into the budget, and visits all of it in an order that is drawn anew each time."""
        points = self.choose_points()
        seconds: dict[Point, list[float]] = {point: [] for point in points}
        order = random.Random(self.assignment.seed)  # noqa: S311 - a shuffle, not a secret
        for _ in range(self.assignment.visits):
            for point in order.sample(points, len(points)):
                seconds[point].append(self._visit(point))
        samples = (SampleRecord(operation=at.operation, size=at.size, seconds=tuple(seconds[at])) for at in points)
        return CurvesRecord(samples=tuple(samples), unavailable=self.unavailable, too_long=self.too_long)

    def choose_points(self) -> list[Point]:
        """The operations that there are at each size, the smallest first, as long as all visits fit into the budget."""
        points: list[Point] = []
        latest: dict[Operation, Point] = {}
        operations = [operation for operation in get_args(Operation) if self._is_available(operation)]
        for size, operation in itertools.product(self.assignment.sizes, operations):
            if operation in self.too_long:
                continue
            expected_s = latest[operation].scaled_s(size) if operation in latest else 0.0
            needed_s = sum(point.visit_s for point in points) * self.assignment.visits
            needed_s += (2 * TRIED_CALLS + 2 * self.assignment.visits) * expected_s
            if self._elapsed_s() + needed_s > self.assignment.budget_s:
                self.too_long[operation] = size
                continue
            latest[operation] = self._try(operation, size)
            points.append(latest[operation])
        return points

    def _is_available(self, operation: Operation) -> bool:
        """Whether the backend has the operation: it is called once, on the smallest size."""
        try:
            self._prepare(operation, min(self.assignment.sizes))()
        except (RuntimeError, ValueError) as error:
            self.unavailable[operation] = first_words(error)
            return False
        return True

    def _try(self, operation: Operation, size: int) -> Point:
        call = self._prepare(operation, size)
        self._time(call, TRIED_CALLS)
        call_s = self.team.find_slowest(self._time(call, TRIED_CALLS) / TRIED_CALLS)
        return Point(operation, size, min(max(1, math.ceil(VISIT_S / call_s)), MAX_CALLS), call_s)

    def _visit(self, point: Point) -> float:
        """The mean seconds of a call, in calls that all ranks begin together, after one that warms up."""
        call = self._prepare(point.operation, point.size)
        call()
        self.team.meet()
        return self._time(call, point.calls) / point.calls

    def _elapsed_s(self) -> float:
        """The seconds since the start, on the rank that began first."""
        return self.team.find_slowest(time.monotonic() - self._started)

    def _prepare(self, operation: Operation, size: int) -> Callable[[], object]:
        return prepare_exchange(operation, self._given[: size // 4], self._received[: size // 4])

    def _time(self, call: Callable[[], object], calls: int) -> float:
        def step(_: int) -> None:
            call()

        return time_steps(step, range(calls), self.device).total_s


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))
