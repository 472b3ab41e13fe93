"""The place of a rank, and what it meets the others over."""

from pathlib import Path
from typing import Any

import pytest
import torch

from parbench.campaign.tasks import Task, assign
from parbench.measure import team
from parbench.measure.team import Role, form_teams
from parbench.plan.reading import read_plan
from parbench.records.corpus import Corpus
from parbench.system.devices import Machine

SCENARIO = """
workloads: {gpt: {model: {kind: transformer, layers: 2}, data: {source: synthetic, vocab_size: 64}}}
strategies: [ddp, task_pool]
devices: {kind: cuda, counts: [4], oversubscribe: true}
"""


def roles(folder: Path, strategy: str, gpus: int) -> list[Role]:
    """What each rank of four devices does on a node with so many GPUs."""
    path = folder / "s.yaml"
    path.write_text(SCENARIO)
    plan = read_plan(path, Machine(cores=((0,), (1,)), gpus=gpus))
    (cell,) = (cell for cell in plan.runnable if cell.record.strategy == strategy)
    task = Task(purpose="measure", cell=cell, key=cell.record.key, models=cell.record.models)
    corpus = Corpus(path="none", sha256="0" * 64, tokens=1000, vocab_size=64, dtype="int32")
    assignment = assign(plan, task, corpus)
    return [Role.of(assignment, rank, rank) for rank in range(4)]


@pytest.mark.parametrize(("gpus", "indices"), [(4, [0, 1, 2, 3]), (8, [0, 1, 2, 3]), (2, [0, 1, 0, 1]), (1, [0] * 4)])
def test_devices_beyond_the_gpus_go_through_them_again(tmp_path: Path, gpus: int, indices: list[int]) -> None:
    assert [role.device for role in roles(tmp_path, "ddp", gpus)] == [torch.device("cuda", index) for index in indices]


@pytest.mark.parametrize(
    ("strategy", "gpus", "meets_on"),
    [("ddp", 4, "cuda"), ("ddp", 2, "cpu"), ("task_pool", 4, "cpu"), ("task_pool", 2, "cpu")],
)
def test_ranks_that_share_a_gpu_or_work_alone_meet_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, gpus: int, meets_on: str
) -> None:
    met: list[torch.device] = []

    def stop_at(device: torch.device, *_: Any) -> None:
        met.append(device)
        raise InterruptedError

    monkeypatch.setattr(team, "join_process_group", stop_at)
    with pytest.raises(InterruptedError):
        form_teams(roles(tmp_path, strategy, gpus)[0], None)
    assert [device.type for device in met] == [meets_on]
