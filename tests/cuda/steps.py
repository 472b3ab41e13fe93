"""Steps of a cell as one of its ranks, on fake devices: two of training, or those of some new tokens."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from parbench.campaign.tasks import Task, assign
from parbench.data.batches import Batch
from parbench.measure.probes.expected_memory import expect_memory
from parbench.measure.probes.memory_account import MemoryAccount
from parbench.measure.probes.traffic import CollectiveCounter
from parbench.measure.rehearsal.rank import rehearse
from parbench.measure.team import Role, set_precision
from parbench.plan.cells import Cell, Plan
from parbench.records.corpus import Corpus
from parbench.records.memory_account import HeldRecord
from parbench.strategies.base import Strategy
from tests.cuda.stand_ins import stand_in_for_cuda


def take_steps(plan: Plan, cell: Cell, rank: int, patch: Any) -> dict[str, Any]:
    """Sets the strategy up and takes steps; where everything was, and what came of them."""
    record = cell.record
    task = Task(purpose="measure", cell=cell, key=record.key, models=record.models)
    corpus = Corpus(path="fake", sha256="0" * 64, tokens=10_000, vocab_size=cell.workload.vocab_size, dtype="int32")
    role = Role.of(assign(plan, task, corpus), rank, rank)
    set_precision(role.spec.precision)
    layout = role.layout
    stand_in_for_cuda(patch)
    torch.cuda.set_device(role.device)
    with rehearse(role) as rehearsal:
        memory = MemoryAccount(role.device)
        strategy = rehearsal.set_up()
        memory.end_setup(strategy)
        if role.spec.phase == "generate":
            outcome = decode(strategy, rehearsal.make_batch(), role.spec.generated)
        else:
            outcome = train(strategy, rehearsal.make_batch(), memory)
            expected = expect_memory(strategy, strategy.workload, layout, rank % layout.ranks_per_lane)
            outcome["expected"] = expected and kept(expected[0])
        return {"devices": sorted({str(local(tensor).device) for tensor in all_tensors(strategy)}), **outcome}


def train(strategy: Strategy[Any], batch: Batch, memory: MemoryAccount) -> dict[str, Any]:
    """Takes two training steps; the loss, what the second one exchanged, and what is held."""
    counter = CollectiveCounter()
    losses: list[Tensor | None] = []

    def step(number: int) -> None:
        with counter if number else nullcontext():
            losses.append(strategy.step(batch))

    account = memory.take(strategy, step, range(2), compiled=False)
    loss = losses[-1]
    return {
        "loss": None if loss is None else [str(loss.device), str(loss.dtype), list(loss.shape)],
        "exchanges": counter.exchanges,
        "held": kept(account.largest),
    }


def decode(strategy: Strategy[Any], batch: Batch, new_tokens: int) -> dict[str, Any]:
    """Continues prompts by so few tokens that no graph is captured, because there is nothing that could replay it."""
    with torch.no_grad():
        tokens = strategy.generate(batch.inputs[:, :-new_tokens], new_tokens, lambda: None)
    assert tokens is not None
    return {"tokens": [str(tokens.device), str(tokens.dtype), list(tokens.shape)]}


def kept(record: HeldRecord) -> list[int]:
    """Bytes of parameters, gradients and optimizer state."""
    return [record.parameters, record.gradients, record.optimizer_state]


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
