"""One rank of a trial on fake tensors, as a worker would set it up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import distributed
from torch.distributed import ProcessGroup

from parbench.data.batches import Batch
from parbench.measure.rehearsal.fake_peers import fake_peers
from parbench.measure.rehearsal.fake_tensors import fake_tensors
from parbench.measure.rehearsal.shaped_stages import shaped_stages
from parbench.measure.team import Role, make_lane_group
from parbench.strategies.base import Strategy
from parbench.training.workload import Workload


class Rehearsal(NamedTuple):
    """What a rank needs to set its strategy up, where all tensors are fake; `group` are the ranks of its lane."""

    role: Role
    group: ProcessGroup | None

    def set_up(self) -> Strategy[Any]:
        """The strategy with its first model."""
        role = self.role
        workload = Workload(role.spec, role.assignment.corpus, seed=role.assignment.seed, device=role.device)
        strategy = role.make_strategy()
        strategy.setup(workload, 0, role.context(self.group))
        return strategy

    def make_batch(self) -> Batch:
        """The rank's shard of a training batch on its device; no text is read."""
        spec, layout = self.role.spec, self.role.layout
        shape: tuple[int, ...] = (spec.global_batch // layout.data_shards, spec.seq_len)
        shape = (layout.stacked, *shape) if layout.stacked > 1 else shape
        return Batch(*(torch.zeros(shape, dtype=torch.int64, device=self.role.device) for _ in range(2)))


@contextmanager
def rehearse(role: Role) -> Iterator[Rehearsal]:
    """A rehearsal of that rank. Its process must have no process group yet, and may have another one afterwards."""
    layout = role.layout
    with fake_peers(role.rank, layout.processes):
        group = distributed.group.WORLD if layout.lanes == 1 else make_lane_group(layout, role.lane)
        with fake_tensors(role.device), shaped_stages(role.spec, layout.data_shards):
            yield Rehearsal(role, group)
