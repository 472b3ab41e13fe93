"""Steps of a cell as one of its ranks, on fake devices: two of training, or those of some new tokens."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from parbench.campaign.tasks import Task, assign
from parbench.data.batches import Batch
from parbench.measure.probes.expected_memory import expect_memory
from parbench.measure.probes.memory_account import MemoryAccount
from parbench.measure.probes.traffic import CollectiveCounter
from parbench.measure.team import Role, make_lane_group, set_precision
from parbench.plan.cells import Cell, Plan
from parbench.records.corpus import Corpus
from parbench.records.memory_account import HeldRecord
from parbench.strategies.base import Strategy
from parbench.training.workload import Workload
from tests.cuda.stand_ins import fake_cuda, give_shapes


def take_steps(plan: Plan, cell: Cell, rank: int, patch: Any) -> dict[str, Any]:
    """Sets the strategy up and takes steps; where everything was, and what came of them."""
    record = cell.record
    task = Task(purpose="measure", cell=cell, key=record.key, models=record.models)
    corpus = Corpus(path="fake", sha256="0" * 64, tokens=10_000, vocab_size=cell.workload.vocab_size, dtype="int32")
    assignment = assign(plan, task, corpus)
    role = Role.of(assignment, rank, rank)
    set_precision(role.spec.precision)
    layout = role.layout
    distributed.init_process_group("fake", rank=rank, world_size=layout.processes, store=FakeStore())
    try:
        group = distributed.group.WORLD if layout.lanes == 1 else make_lane_group(layout, role.lane)
        with fake_cuda(patch):
            give_shapes(patch, role.spec, layout.data_shards)
            torch.cuda.set_device(role.device)
            workload = Workload(role.spec, corpus, seed=0, device=role.device)
            strategy = role.make_strategy()
            memory = MemoryAccount(role.device)
            strategy.setup(workload, 0, role.context(group))
            memory.end_setup(strategy)
            if role.spec.phase == "generate":
                outcome = decode(strategy, role)
            else:
                outcome = train(strategy, role, memory)
                expected = expect_memory(strategy, workload, layout, rank % layout.ranks_per_lane)
                outcome["expected"] = expected and kept(expected[0])
            return {"devices": sorted({str(local(tensor).device) for tensor in all_tensors(strategy)}), **outcome}
    finally:
        distributed.destroy_process_group()


def train(strategy: Strategy[Any], role: Role, memory: MemoryAccount) -> dict[str, Any]:
    """Takes two training steps; the loss, what the second one exchanged, and what is held."""
    batch, counter = make_batch(role), CollectiveCounter()
    losses: list[Tensor | None] = []

    def step(number: int) -> None:
        with counter if number else nullcontext():
            losses.append(strategy.step(batch))

    account = memory.take(strategy, step, range(2), compiled=False)
    loss = losses[-1]
    return {
        "loss": None if loss is None else [str(loss.device), str(loss.dtype), list(loss.shape)],
        "calls": counter.calls,
        "given_bytes": counter.given_bytes,
        "parameters": sum(local(parameter).numel() for parameter in strategy.model.parameters()),
        "held": kept(account.largest),
    }


def decode(strategy: Strategy[Any], role: Role) -> dict[str, Any]:
    """Continues prompts by so few tokens that no graph is captured, because there is nothing that could replay it."""
    new_tokens = role.spec.generated
    prompts = make_batch(role).inputs[:, : role.spec.seq_len - new_tokens]
    with torch.no_grad():
        tokens = strategy.generate(prompts, new_tokens, lambda: None)
    assert tokens is not None
    return {"tokens": [str(tokens.device), str(tokens.dtype), list(tokens.shape)]}


def kept(record: HeldRecord) -> list[int]:
    """Bytes of parameters, gradients and optimizer state."""
    return [record.parameters, record.gradients, record.optimizer_state]


def make_batch(role: Role) -> Batch:
    """A fake batch of this rank's shard on its device."""
    spec, layout = role.spec, role.layout
    shape = (spec.global_batch // layout.data_shards, spec.seq_len)
    shape = (layout.stacked, *shape) if layout.stacked > 1 else shape
    return Batch(*(torch.zeros(shape, dtype=torch.int64, device=role.device) for _ in range(2)))


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def all_tensors(strategy: Any) -> Iterator[Tensor]:
    """Parameters, buffers and, where it trains, the optimizer's state."""
    yield from strategy.model.parameters()
    yield from strategy.model.buffers()
    for optimizer in strategy.optimizers() if strategy.workload.trains else ():
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
