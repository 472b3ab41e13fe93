"""The proof of a cell: a few steps in which a wrong strategy cannot look right.

Adam hides wrongly scaled gradients, a small learning rate hides all mistakes, and below fp32 rounding does. So every
cell takes a few untimed steps in fp32 with SGD at a large rate, on its own layout, options and data.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from parbench.base_types import DeviceKind
from parbench.plan.cell_key import cell_key, plainly
from parbench.records.assignment import PARITY_STEPS, Twin
from parbench.records.cell import ProofRecord
from parbench.scenario.specs import OptimizerSpec, Scenario, WorkloadSpec

SMALLEST_SHARE = 8
"""By what the global batch is divided at most, where the whole one does not fit in fp32."""


class Course(NamedTuple):
    """The learning rate and momentum of SGD, and how many steps at a rate of zero come first."""

    rate: float
    momentum: float
    quiet_steps: int = 0

    @property
    def steps(self) -> int:
        """How many steps it has in all."""
        return self.quiet_steps + PARITY_STEPS


EXACT = Course(rate=0.1, momentum=0.9)


INEXACT = Course(rate=0.3, momentum=0.0, quiet_steps=10)
"""What an inexact strategy may do adds up, and soon hides mistakes. Without learning nothing adds up: so a mistake that
begins after some steps shows in those that follow the quiet ones. Momentum would learn from the quiet steps too."""


def course_of(exact: bool) -> Course:
    """The course of a cell's proof."""
    return EXACT if exact else INEXACT


def proofs_of(
    scenario: Scenario,
    workload: WorkloadSpec,
    kind: DeviceKind,
    place: Mapping[str, Any],
    possible: Callable[[WorkloadSpec], bool],
    *,
    exact: bool,
) -> tuple[ProofRecord, ...]:
    """How a cell can be proven, the best way first; none where its timed steps in fp32 prove as much.

    `possible` says whether the cell's strategy lays out such a workload as it does the cell's own.
    """
    each = ((batch, proof_workload(workload, batch, course_of(exact))) for batch in _batches(workload, exact))
    return tuple(
        ProofRecord(
            global_batch=batch,
            key=cell_key(scenario, proven, kind, proof=True, **place),
            reference=cell_key(scenario, plainly(proven).model_copy(update={"models": 0}), kind, proof=True),
        )
        for batch, proven in each
        if possible(proven)
    )


def proof_workload(workload: WorkloadSpec, global_batch: int, course: Course) -> WorkloadSpec:
    """The workload as it is proven: in fp32, with an optimizer that hides nothing, on so many sequences."""
    decay = workload.optimizer.weight_decay
    optimizer = OptimizerSpec(name="sgd", lr=course.rate, momentum=course.momentum, weight_decay=decay)
    changes = {"precision": "fp32", "optimizer": optimizer, "length_per_model": None, "global_batch": global_batch}
    return workload.model_copy(update=changes)


def twins_of(workload: WorkloadSpec, data_shards: set[int]) -> tuple[Twin, ...]:
    """What follows the reference of a proof: how rounding grows, and mistakes that must show.

    Those are gradients that are not synchronised between so many data shards, and half of a batch.
    """
    apart = tuple(Twin(kind="apart", parts=shards) for shards in sorted(data_shards) if shards > 1)
    return (*_split(workload), *_half(workload), *(apart if workload.phase == "train" else ()))


def timed_twins_of(workload: WorkloadSpec) -> tuple[Twin, ...]:
    """What follows the reference of timed steps, where mistakes may begin late: a strategy that does nothing more."""
    return (*_split(workload), Twin(kind="idle")) if workload.phase == "train" else _half(workload)


def _split(workload: WorkloadSpec) -> tuple[Twin, ...]:
    even = workload.global_batch % (2 * workload.gradient_accumulation) == 0
    return (Twin(kind="split"),) if even and workload.phase == "train" else ()


def _half(workload: WorkloadSpec) -> tuple[Twin, ...]:
    return (Twin(kind="half"),) if workload.global_batch > 1 and workload.phase != "generate" else ()


def _batches(workload: WorkloadSpec, exact: bool) -> Iterator[int]:
    trains = workload.phase == "train"
    if not trains and (workload.precision == "fp32" or not exact):
        return
    yield workload.global_batch
    if workload.precision == "fp32":
        return
    for divisor in (2, 4, SMALLEST_SHARE):
        if workload.global_batch % divisor == 0:
            yield workload.global_batch // divisor
