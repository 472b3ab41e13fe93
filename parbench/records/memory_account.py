"""What the memory of a rank holds in a step."""

from typing import Literal

from parbench.base_types import Record

MemoryPart = Literal["parameters", "optimizer_state", "gradients", "activations", "buffers", "rest"]
"""What the memory of a rank holds: the fields of a `MemoryPartsRecord`."""


class HeldRecord(Record):
    """Bytes that the training of a model keeps; gradients are those right before the optimizer's step.

    Memory that several tensors share counts once, and it counts whole where a tensor is a part of it.
    """

    parameters: int = 0
    gradients: int = 0
    optimizer_state: int = 0


class MemoryPartsRecord(HeldRecord):
    """Bytes of everything that a step uses. What is one part is no other, so that the parts of a moment add up.

    `activations` are what forward passes make, also where a checkpoint repeats them. `buffers` are for communication:
    what is handed to collectives, what messages are received into, and parameters gathered from their shards. `rest` is
    everything else: temporary results of backward passes and of the optimizer, constants of the model and, on CUDA,
    what kernels allocate for themselves.
    """

    activations: int = 0
    buffers: int = 0
    rest: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return self.parameters + self.gradients + self.optimizer_state + self.activations + self.buffers + self.rest


class GrowthRecord(Record):
    """By how many bytes the anonymous resident memory of the process (proc(5), `RssAnon`) had grown after each phase.

    It holds the tensors, freed memory that the C library keeps, and whatever else the process needs. None where the
    kernel does not tell.
    """

    setup: int | None = None
    warm_up: int | None = None
    window: int | None = None


class MemoryAccountRecord(Record):
    """The account of a model's memory on one rank, from some steps after the window.

    `at_peak` is the moment at which tensors take the most bytes; on CUDA its total is the peak that torch's allocator
    saw on the rank's first device. `largest` has the most bytes that each part takes, at whatever moment. What code of
    torch.compile allocates is not told apart: it is in the rest on CUDA, and on CPU `at_peak` is None.

    `expected` is what the rank has to hold by the arithmetic of its strategy, and `whole` what one device holds that
    trains one whole model; both are None for models that cannot be outlined without memory. `growth`, which is None on
    CUDA, is from before the set-up of the model.
    """

    largest: MemoryPartsRecord
    at_peak: MemoryPartsRecord | None = None
    expected: HeldRecord | None = None
    whole: HeldRecord | None = None
    growth: GrowthRecord | None = None
