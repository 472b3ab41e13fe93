"""Where a rank is pinned: to its CPU devices, or to the cores beside its GPUs."""

import os

import pytest
import torch

from parbench.measure import team
from parbench.measure.team import Role
from tests.support.records import assignment


def role(rank: int, **changes: object) -> Role:
    return Role.of(assignment(**changes), rank, rank)


def test_a_cpu_rank_is_pinned_to_its_device() -> None:
    assert (role(1).cores, role(1).cpus) == (((1,),), (1,))
    both = role(0, strategy="data_parallel", cores=((0, 4), (1, 5)))
    assert (both.cores, both.cpus) == (((0, 4), (1, 5)), (0, 4, 1, 5))


def test_a_gpu_rank_is_pinned_beside_its_gpu_before_it_touches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: done.append(cpus))
    monkeypatch.setattr(torch, "set_num_threads", done.append)
    monkeypatch.setattr(team, "prepare_compiler", lambda *_: None)
    monkeypatch.setattr(team, "set_precision", lambda _: None)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    on_gpu = role(1, device_kind="cuda", cores=(), rank_cores=((0, 1), (2, 3)), threads=2)
    assert (on_gpu.cores, on_gpu.cpus) == ((), (2, 3))
    on_gpu.pin()
    assert done == [(2, 3), 2, torch.device("cuda", 1)]


def test_a_gpu_rank_without_cores_of_its_own_is_not_pinned() -> None:
    assert role(0, device_kind="cuda", cores=()).cpus == ()
