"""Stages of a pipeline by themselves; what they compute together is in tests/test_parity.py."""

from collections.abc import Iterator

import pytest
import torch
from torch import distributed, nn
from torch.distributed import pipelining

from parbench.training.pipeline import PipelineStage


@pytest.fixture
def alone() -> Iterator[None]:
    """A world of one rank."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_stages_of_one_rank_do_not_greet_each_other(alone: None) -> None:
    stage = PipelineStage(nn.Identity(), 0, 2, torch.device("cpu"))
    assert {op.group_peer for op in pipelining.PipelineStage._get_init_p2p_neighbors_ops(stage)} == {0}
    assert stage._get_init_p2p_neighbors_ops() == []
