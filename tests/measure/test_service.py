"""A rank that MPS is to serve, on devices that are not there."""

import pytest
import torch

from parbench.measure import team
from parbench.measure.team import Role
from tests.records.test_versions import ASSIGNMENT

WORKLOAD = {"model": {"kind": "lstm", "layers": 1, "d_model": 8}, "models": 6}
SHARED = ASSIGNMENT.model_copy(
    update={
        "workload": WORKLOAD,
        "strategy": "task_pool",
        "options": {"tasks_per_device": 2, "sharing": "mps"},
        "device_kind": "cuda",
        "mps": True,
    }
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The devices that were asked about; MPS serves number 0 alone, and of number 1 the driver does not tell."""
    devices: list[int] = []

    def is_client(device: int) -> bool | None:
        devices.append(device)
        return {0: True, 1: None}.get(device, False)

    monkeypatch.setattr(team, "is_client", is_client)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    return devices


def test_a_rank_that_mps_serves_or_of_which_nobody_knows_goes_on(asked: list[int]) -> None:
    for local_rank in (1, 2):
        Role.of(SHARED.model_copy(update={"devices": 2}), local_rank, local_rank).require_service()
    assert asked == [0, 1]


def test_a_rank_that_mps_is_to_serve_and_does_not_fails(asked: list[int]) -> None:
    role = Role.of(SHARED.model_copy(update={"devices": 3}), 4, 4)
    with pytest.raises(RuntimeError, match="MPS does not serve cuda:2"):
        role.require_service()
    assert asked == [2]


def test_a_rank_that_does_not_ask_for_mps_asks_nobody(asked: list[int]) -> None:
    Role.of(SHARED.model_copy(update={"mps": False}), 0, 0).require_service()
    assert asked == []
