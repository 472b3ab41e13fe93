"""The proof of a cell: a few untimed steps in which a wrong strategy shows.

In timed steps mistakes can hide: Adam does not see wrongly scaled gradients, a small learning rate makes all effects
small, and rounding below fp32 covers them. So the proof takes its steps in fp32 with SGD at a large learning rate, with
the cell's own layout, options and data.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from parbench.base_types import DeviceKind
from parbench.plan.cell_key import cell_key, without_compilation
from parbench.records.assignment import PARITY_STEPS, Twin
from parbench.records.cell import ProofRecord
from parbench.scenario.specs import OptimizerSpec, Scenario, WorkloadSpec

LARGEST_DIVISOR = 8
"""The largest divisor of the global batch, which is divided where a proof in fp32 does not fit into memory."""


class Course(NamedTuple):
    """Learning rate and momentum of SGD, and the number of steps at a rate of zero before the others."""

    rate: float
    momentum: float
    quiet_steps: int = 0

    @property
    def steps(self) -> int:
        """The number of all steps."""
        return self.quiet_steps + PARITY_STEPS


EXACT = Course(rate=0.1, momentum=0.9)


INEXACT = Course(rate=0.3, momentum=0.0, quiet_steps=10)
"""For strategies that may round. While a model learns, their deviations add up and soon cover mistakes; at a learning
rate of zero they do not. So a mistake that begins late shows in the steps after the quiet ones. There is no momentum,
because it would carry gradients of the quiet steps into the others."""


def course_of(exact: bool) -> Course:
    """The course of the proof of an exact or an inexact cell."""
    return EXACT if exact else INEXACT


def proofs_of(
    scenario: Scenario,
    workload: WorkloadSpec,
    kind: DeviceKind,
    place: Mapping[str, Any],
    has_same_shape: Callable[[WorkloadSpec], bool],
    *,
    exact: bool,
) -> tuple[ProofRecord, ...]:
    """The proofs that can be tried, the one with the largest batch first; none where timed steps in fp32 prove as much.

    `has_same_shape` tells whether the strategy lays out a workload in the shape of the cell's own layout.
    """
    candidates = ((batch, proof_workload(workload, batch, course_of(exact))) for batch in _batches(workload, exact))
    return tuple(
        ProofRecord(
            global_batch=batch,
            key=cell_key(scenario, proven, kind, proof=True, **place),
            reference=cell_key(
                scenario, without_compilation(proven).model_copy(update={"models": 0}), kind, proof=True
            ),
        )
        for batch, proven in candidates
        if has_same_shape(proven)
    )


def proof_workload(workload: WorkloadSpec, global_batch: int, course: Course) -> WorkloadSpec:
    """The workload of a proof: in fp32, with SGD on `course`, and with this global batch in sequences."""
    decay = workload.optimizer.weight_decay
    optimizer = OptimizerSpec(name="sgd", lr=course.rate, momentum=course.momentum, weight_decay=decay)
    changes = {"precision": "fp32", "optimizer": optimizer, "length_per_model": None, "global_batch": global_batch}
    return workload.model_copy(update=changes)


def twins_of(workload: WorkloadSpec, data_shards: set[int]) -> tuple[Twin, ...]:
    """The twins of a proof's reference, which show how far rounding leads and how far mistakes do.

    The mistakes are gradients that are not synchronised between as many data shards as some cell has, and a batch of
    which half is missing.
    """
    apart = tuple(Twin(kind="apart", parts=shards) for shards in sorted(data_shards) if shards > 1)
    return (*_split(workload), *_half(workload), *(apart if workload.phase == "train" else ()))


def timed_twins_of(workload: WorkloadSpec) -> tuple[Twin, ...]:
    """The twins of a timed reference, where mistakes may begin late, such as a model that stops learning."""
    return (*_split(workload), Twin(kind="idle")) if workload.phase == "train" else _half(workload)


def _split(workload: WorkloadSpec) -> tuple[Twin, ...]:
    """The twin that shows rounding: it adds up the gradients of two halves of each batch."""
    even = workload.global_batch % (2 * workload.gradient_accumulation) == 0
    return (Twin(kind="split"),) if even and workload.phase == "train" else ()


def _half(workload: WorkloadSpec) -> tuple[Twin, ...]:
    """The twin that leaves out half of each batch."""
    return (Twin(kind="half"),) if workload.global_batch > 1 and workload.phase != "generate" else ()


def _batches(workload: WorkloadSpec, exact: bool) -> Iterator[int]:
    """The global batches to try, the largest first."""
    trains = workload.phase == "train"
    if not trains and (workload.precision == "fp32" or not exact):
        return
    yield workload.global_batch
    if workload.precision == "fp32":
        return
    for divisor in (2, 4, LARGEST_DIVISOR):
        if workload.global_batch % divisor == 0:
            yield workload.global_batch // divisor
