"""Two steps of a cell as one of its ranks, on fake devices."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from parbench.campaign.tasks import Task, assign
from parbench.measure.probes.traffic import CollectiveCounter
from parbench.measure.rehearsal.rank import rehearse
from parbench.measure.team import Role, set_precision
from parbench.plan.cells import Cell, Plan
from parbench.records.corpus import Corpus
from tests.cuda.stand_ins import stand_in_for_cuda


def take_steps(plan: Plan, cell: Cell, rank: int, patch: Any) -> dict[str, Any]:
    """Sets the strategy up and takes two steps; where everything was, and what the second step exchanged."""
    record = cell.record
    task = Task(purpose="measure", cell=cell, key=record.key, models=record.models)
    corpus = Corpus(path="fake", sha256="0" * 64, tokens=10_000, vocab_size=cell.workload.vocab_size, dtype="int32")
    role = Role.of(assign(plan, task, corpus), rank, rank)
    set_precision(role.spec.precision)
    stand_in_for_cuda(patch)
    torch.cuda.set_device(role.device)
    with rehearse(role) as rehearsal:
        strategy, batch = rehearsal.set_up(), rehearsal.make_batch()
        strategy.step(batch)
        with CollectiveCounter() as counter:
            loss = strategy.step(batch)
        return {
            "devices": sorted({str(local(tensor).device) for tensor in all_tensors(strategy)}),
            "loss": None if loss is None else [str(loss.device), str(loss.dtype), list(loss.shape)],
            "exchanges": counter.exchanges,
        }


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def all_tensors(strategy: Any) -> Iterator[Tensor]:
    """Parameters, buffers, and the optimizer's state."""
    yield from strategy.model.parameters()
    yield from strategy.model.buffers()
    optimizer = strategy.updates.optimizer
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
