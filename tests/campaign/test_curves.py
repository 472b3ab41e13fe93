"""A machine that measures itself: launches in turns, as far as the time goes, also where some of them fail."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from parbench.campaign import curves
from parbench.campaign.curves import LEAST_S, ROUNDS, VISITS, WORKER, Survey
from parbench.errors import NothingMeasuredError
from parbench.launch.base import Launcher, Outcome
from parbench.launch.local.launcher import LocalLauncher
from parbench.records.curves import CURVES_FILE, CurvesAssignment, CurvesRecord, Operation, SampleRecord
from parbench.records.machine import MachineRecord
from parbench.records.trial import RankRecord
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine
from tests.support.waiting import PATIENCE_S

OPERATIONS = get_args(Operation)
SOME_SIZES = (1024, 2**16, 2**20)
MACHINE = Machine(cores=((0,), (1,), (2,), (3,), (4,)))


class FakeLauncher(Launcher):
    """Every call takes a millisecond, and one on rank 1 two; launches of `failing` ranks end with exit code 1."""

    def __init__(self, failing: tuple[int, ...] = ()) -> None:
        self.launched: list[tuple[int, CurvesAssignment]] = []
        self.failing = failing

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        assignment = CurvesAssignment.model_validate_json((folder / CURVES_FILE).read_text())
        self.launched.append((processes, assignment))
        assert deadline_s == assignment.deadline_s > assignment.budget_s
        if processes in self.failing:
            return Outcome(exit_codes=(1,) * processes, wall_s=1.0)
        for rank in range(processes):
            found = self.rates(assignment) if processes == 1 else self.samples(assignment, rank)
            record = RankRecord(rank=rank, host="fake", pid=1, stage="done", curves=found)
            (folder / f"rank{rank}.json").write_text(json.dumps(record.model_dump(mode="json")))
        return Outcome(exit_codes=(0,) * processes, wall_s=1.0)

    def rates(self, assignment: CurvesAssignment) -> CurvesRecord:
        number = float(len(self.launched))
        return CurvesRecord(matmul_flops=dict.fromkeys(assignment.matmul, 1e9 * number), copy_bytes_per_s=1e9 / number)

    def samples(self, assignment: CurvesAssignment, rank: int) -> CurvesRecord:
        seconds = (0.002 if rank == 1 else 0.001,) * assignment.visits
        return CurvesRecord(
            samples=tuple(
                SampleRecord(operation=operation, size=size, seconds=seconds)
                for size in assignment.sizes
                for operation in OPERATIONS
            )
        )

    def close(self) -> None:
        pass


def survey(launcher: Launcher, machine: Machine = MACHINE) -> tuple[Survey, list[str]]:
    said: list[str] = []
    return Survey(launcher, machine, said.append), said


def test_numbers_of_ranks_take_turns_and_each_rank_has_a_core_of_its_own() -> None:
    launcher = FakeLauncher()
    mine, said = survey(launcher)
    record = mine.run(60)
    assert [ranks for ranks, _ in launcher.launched] == [1, 2, 4] * ROUNDS
    assert len(said) == 3 * ROUNDS
    for ranks, assignment in launcher.launched:
        assert assignment.cores == tuple((core,) for core in range(ranks))
        assert assignment.threads == 1
    assert len({assignment.seed for _, assignment in launcher.launched}) == 3 * ROUNDS
    assert [(curve.operation, curve.ranks) for curve in record.curves] == [
        (operation, ranks) for ranks in (2, 4) for operation in OPERATIONS
    ]
    (point, *_) = record.curves[0].points
    assert (point.size, point.seconds, point.samples) == (1024, 0.002, ROUNDS * VISITS)
    assert not mine.failures


def test_the_time_is_shared_among_the_launches_that_are_left() -> None:
    launcher = FakeLauncher()
    survey(launcher)[0].run(90)
    shares = [assignment.budget_s for _, assignment in launcher.launched]
    # A fake launch takes no time, so all is left for those that follow.
    assert shares[0] == pytest.approx(10, rel=0.1)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(90, rel=0.1)


def test_without_time_left_every_number_of_ranks_is_still_launched_once() -> None:
    launcher = FakeLauncher()
    survey(launcher)[0].run(0)
    assert [(ranks, assignment.budget_s) for ranks, assignment in launcher.launched] == [
        (1, LEAST_S), (2, LEAST_S), (4, LEAST_S)
    ]  # fmt: skip


def test_a_device_has_the_best_rate_of_all_launches_and_the_reason_of_what_it_has_not() -> None:
    device = survey(FakeLauncher())[0].run(60).device
    # The launches of one rank are the first, the fourth and the seventh.
    assert device.matmul_flops == {"fp32": 7e9, "bf16": 7e9, "fp16": 7e9}
    assert device.copy_bytes_per_s == 1e9
    assert (device.kind, device.count) == ("cpu", 5)
    assert device.unavailable == {"tf32": "tf32 is a format of NVIDIA GPUs; on CPU use fp32 or bf16"}


def test_a_launch_that_fails_costs_its_own_curves_and_is_not_repeated() -> None:
    launcher = FakeLauncher(failing=(2,))
    mine, _ = survey(launcher)
    record = mine.run(60)
    assert [ranks for ranks, _ in launcher.launched] == [1, 2, 4, 1, 4, 1, 4]
    assert mine.failures == {2: "failed: rank 0 ended with exit code 1 before it started, without an error message"}
    assert record.curve("all_reduce", 2) is None
    assert {curve.unavailable for curve in record.curves if curve.ranks == 2} == {mine.failures[2]}
    assert record.curve("all_reduce", 4) is not None


def test_where_every_launch_fails_nothing_was_measured() -> None:
    with pytest.raises(NothingMeasuredError, match="nothing was measured: failed: rank 0 ended with exit code 1"):
        survey(FakeLauncher(failing=(1, 2, 4)))[0].run(60)


def test_tensors_that_the_memory_cannot_hold_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    room = type("Memory", (), {"available": 16 * 2**20, "total": 2**30})
    monkeypatch.setattr(curves.psutil, "virtual_memory", lambda: room)
    launcher = FakeLauncher()
    record = survey(launcher)[0].run(60)
    assert {ranks: assignment.sizes[-1] for ranks, assignment in launcher.launched} == {1: 2**22, 2: 2**20, 4: 2**20}
    assert {curve.left_out for curve in record.curves} == {"larger tensors of all ranks did not fit into the memory"}


def test_a_single_device_has_nothing_to_exchange() -> None:
    record = survey(FakeLauncher(), replace(MACHINE, cores=((0,),)))[0].run(60)
    assert record.curves == ()
    assert record.device.matmul_flops


@pytest.fixture(scope="module")
def measured() -> MachineRecord:
    """One launch of one rank and one of two that really exchange, on as many cores as there are."""
    launcher = LocalLauncher(WORKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "ROUNDS", 1)
        patch.setattr(curves, "SIZES", SOME_SIZES)
        try:
            return Survey(launcher, Machine(cores=(allowed_cores() * 2)[:2]), print).run(PATIENCE_S)
        finally:
            launcher.close()


def test_ranks_measure_every_operation_that_the_backend_has_at_every_size(measured: MachineRecord) -> None:
    assert [curve.operation for curve in measured.curves] == list(OPERATIONS)
    for curve in measured.curves:
        if curve.unavailable:
            assert "Error: " in curve.unavailable, "the backend says why"
            continue
        assert [point.size for point in curve.points] == list(SOME_SIZES)
        assert all(0 < point.low_s <= point.seconds <= point.high_s for point in curve.points)
        assert {point.samples for point in curve.points} == {VISITS}
        assert curve.left_out is None


def test_the_operations_that_strategies_need_are_there(measured: MachineRecord) -> None:
    there = {curve.operation for curve in measured.curves if curve.points}
    assert {"all_reduce", "all_gather", "p2p"} <= there


def test_a_rank_measures_its_device(measured: MachineRecord) -> None:
    assert min(measured.device.matmul_flops["fp32"], measured.device.copy_bytes_per_s or 0.0) > 0
    assert set(measured.device.matmul_flops) | set(measured.device.unavailable) == {"fp32", "tf32", "bf16", "fp16"}
