"""A prediction of what a rank will need."""

from parbench.base_types import Record
from parbench.records.assignment import Assignment


class MemoryPrediction(Record):
    """The memory that a rank's tensors take in a training step, in bytes.

    `parameters` with the model's buffers, `gradients` and `optimizer_state` are what there is of each at the end of the
    optimizer's step; `activations` are the most that there are at any time. `at_peak` is what each kind takes when all
    take the most together; `other` are gradients of activations, buffers of communication, and the batch.
    """

    parameters: int
    gradients: int
    optimizer_state: int
    activations: int
    at_peak: dict[str, int]

    @property
    def peak(self) -> int:
        """The most that all tensors take together."""
        return sum(self.at_peak.values())

    @property
    def lasting(self) -> int:
        """What there is at the end of the optimizer's step: parameters, gradients and the optimizer's state."""
        return self.parameters + self.gradients + self.optimizer_state


class RehearsalAssignment(Record):
    """The rank of a trial that is to be rehearsed; no text is read."""

    assignment: Assignment
    rank: int


class RehearsalRecord(Record):
    """What came of a rehearsal: a prediction, or why there is none."""

    prediction: MemoryPrediction | None = None
    unavailable: str | None = None
