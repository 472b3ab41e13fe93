"""The memory that a rank's training step takes, found out on fake tensors: on any machine, whatever the model's size.

A process of its own rehearses ranks: `python -m parbench.measure.rehearsal.memory` reads a `RehearsalAssignment` from
each line of its input, and writes a `RehearsalRecord` for each.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from parbench.errors import Unsupported
from parbench.measure.rehearsal.allocations import Allocations, Kind
from parbench.measure.rehearsal.rank import rehearse
from parbench.measure.team import Role
from parbench.records.assignment import Assignment
from parbench.records.prediction import MemoryPrediction, RehearsalAssignment, RehearsalRecord
from parbench.strategies.base import Strategy


def predict_memory(assignment: Assignment, rank: int) -> MemoryPrediction:
    """The memory of a rank in a step after the first, in which optimizers make their state.

    It is that of the tensors: a CUDA context, cuBLAS's workspace and what an allocator keeps come on top. Needs a
    process without a process group. For CUDA, torch must be able to use a GPU, however small. Raises `Unsupported`
    where such a step cannot be taken on fake tensors.
    """
    # On this node every rank would be the first: whichever devices it drives, they are alike.
    role = Role.of(assignment, rank, 0)
    _require_rehearsable(role)
    with rehearse(role) as rehearsal, Allocations(role.device) as allocations:
        strategy, batch = rehearsal.set_up(), rehearsal.make_batch()
        allocations.label("other", batch)
        with _labelled(allocations, strategy) as lasting:
            strategy.step(batch)
            allocations.start()
            for _ in range(strategy.cycle()):
                strategy.step(batch)
        activations, at_peak = allocations.largest("activations"), allocations.at_peak()
        strategy.close()
    return MemoryPrediction(
        parameters=lasting["parameters"],
        gradients=lasting["gradients"],
        optimizer_state=lasting["optimizer_state"],
        activations=activations,
        at_peak={str(kind): size for kind, size in at_peak.items() if size},
    )


def _require_rehearsable(role: Role) -> None:
    if role.spec.phase != "train":
        raise Unsupported("memory is predicted for training steps only")
    if role.spec.compile:
        raise Unsupported("what torch.compile keeps in memory shows only once it has compiled")
    if reason := role.spec.model.changing_sizes(role.spec.phase):
        raise Unsupported(f"fake tensors have no data, and {reason}")
    if role.layout.devices_per_process > 1:
        raise Unsupported("one process drives several devices, from threads that know nothing of fake tensors")


@contextmanager
def _labelled(allocations: Allocations, strategy: Strategy[Any]) -> Iterator[Counter[Kind]]:
    """Labels parameters, gradients and optimizers' state as optimizers step while the block runs.

    Gives the bytes of each kind at the end of an optimizer's step, of the last one so far.
    """
    lasting: Counter[Kind] = Counter()

    def label_before(optimizer: Any, *_: Any) -> None:
        model = strategy.model
        allocations.label("parameters", [*model.parameters(), *model.buffers()])
        stepped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in (*model.parameters(), *stepped)]
        allocations.label("gradients", [gradient for gradient in gradients if gradient is not None])

    def label_after(optimizer: Any, *_: Any) -> None:
        states = [value for state in optimizer.state.values() for value in state.values()]
        allocations.label("optimizer_state", [value for value in states if isinstance(value, Tensor)])
        lasting.clear()
        lasting.update(allocations.alive())

    handles = register_optimizer_step_pre_hook(label_before), register_optimizer_step_post_hook(label_after)
    try:
        yield lasting
    finally:
        for handle in handles:
            handle.remove()


def rehearse_line(line: str) -> str:
    """The record of one assignment, both as JSON. Whatever the rehearsal raises is why nothing is predicted."""
    rehearsal = RehearsalAssignment.model_validate_json(line)
    try:
        record = RehearsalRecord(prediction=predict_memory(rehearsal.assignment, rehearsal.rank))
    except Exception as error:  # noqa: BLE001 - of a strategy or a model that is a plug-in, anything
        reason = str(error) if isinstance(error, Unsupported) else f"{type(error).__name__}: {error}"
        record = RehearsalRecord(unavailable=reason)
    return record.model_dump_json()


if __name__ == "__main__":
    for each in sys.stdin:
        print(rehearse_line(each), flush=True)
