"""What one step is in each phase, and what the first steps leave to prove that they computed the right thing."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from parbench.base_types import Phase
from parbench.data.batches import Batch
from parbench.measure.clock import Marks
from parbench.measure.failures import require_finite
from parbench.records.trial import GenerationRecord
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import Strategy
from parbench.training.generation import measure_closest_choices

GetBatch = Callable[[int], Batch]
"""The batch of a step by its number."""


class Steps(ABC):
    """Takes steps of a strategy, and keeps the losses or tokens of the first `verified` ones; `taken` counts all.

    Losses and tokens stay on the device until they are read: nothing is read back while steps are timed.
    """

    phase: ClassVar[Phase]

    def __init__(
        self, strategy: Strategy[Any], spec: WorkloadSpec, training: GetBatch, validation: GetBatch, verified: int
    ) -> None:
        self.strategy = strategy
        self.spec = spec
        self.verified = verified
        self.training = training
        self.validation = validation
        self.forward_only = choose_forward_mode(strategy.model)
        self.losses: list[Tensor] = []
        self.latest: Tensor | None = None
        self.taken = 0

    def __call__(self, index: int) -> None:
        """Takes step number `index`."""
        self._take(index)
        self.taken = index + 1

    @abstractmethod
    def _take(self, index: int) -> None:
        """One step of the phase."""

    def start_window(self) -> None:  # noqa: B027 - most phases keep no times of warm-up
        """Is called right before the first timed step."""

    def be_reference(self) -> None:  # noqa: B027 - losses need nothing more
        """Is called before the first step of a reference: it keeps what others' results are judged by."""

    def read_generation(self) -> GenerationRecord | None:
        """The tokens that were generated and their times; None in other phases."""
        return None

    def read_losses(self) -> list[list[float]]:
        """The losses of each verified step, one a model. Raises `FloatingPointError` where one is NaN or infinite."""
        return [require_finite(loss, f"the loss of step {index}") for index, loss in enumerate(self.losses)]

    def _keep(self, index: int, loss: Tensor | None) -> None:
        self.latest = loss
        if loss is not None and index < self.verified:
            self.losses.append(loss)


class TrainingSteps(Steps):
    """A step is one update of the parameters."""

    phase = "train"

    def _take(self, index: int) -> None:
        """An optimizer step on the training batch of that number."""
        self._keep(index, self.strategy.step(self.training(index)))


class ScoringSteps(Steps):
    """A step computes the loss of a batch of held-out text."""

    phase = "score"

    def _take(self, index: int) -> None:
        """A forward pass without gradients, on the validation batch of that number."""
        with self.forward_only():
            self._keep(index, self.strategy.evaluate(self.validation(index)))


class GenerationSteps(Steps):
    """A step continues a batch of prompts by greedy decoding."""

    phase = "generate"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tokens: list[Tensor] = []
        self._marks: list[Marks] = []
        self._has_tokens = False
        self._is_reference = False
        self._closest: list[Tensor] = []

    def _take(self, index: int) -> None:
        """Prompts are the beginnings of held-out sequences."""
        new_tokens = self.spec.generated
        with self.forward_only():
            prompts = self.validation(index).inputs[:, : self.spec.seq_len - new_tokens]
            marks = Marks(prompts.device)
            tokens = self.strategy.generate(prompts, new_tokens, marks.mark)
            if self._is_reference and tokens is not None and index < self.verified:
                self._closest.append(measure_closest_choices(self.strategy.model, prompts, tokens))
        self._marks.append(marks)
        self._has_tokens = tokens is not None
        if tokens is not None and index < self.verified:
            self._tokens.append(tokens)

    def be_reference(self) -> None:
        """Keeps how close the choices of tokens were: where they were very close, rounding decides."""
        self._is_reference = True

    def start_window(self) -> None:
        """Forgets the times of warm-up."""
        self._marks.clear()

    def read_generation(self) -> GenerationRecord:
        """Digests of the verified steps' sequences, and the window's times; empty where this rank has no tokens."""
        if not self._has_tokens:
            return GenerationRecord()
        intervals = [marks.read_intervals() for marks in self._marks]
        return GenerationRecord(
            sequences=tuple(digest(sequence) for tokens in self._tokens for sequence in tokens),
            first_token_s=tuple(times[0] for times in intervals),
            token_s=tuple(time for times in intervals for time in times[1:]),
            closest_choices=tuple(float(distance) for closest in self._closest for distance in closest),
        )


def choose_forward_mode(model: nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """The context for a forward pass without a backward pass: `inference_mode`, which costs least, or `no_grad`.

    `DTensor`s fail in inference mode (seen with torch 2.13). torch's DataParallel replicates in threads, which do not
    inherit inference mode although the parameters that they replicate were made in it.
    """
    has_dtensors = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    return torch.no_grad if has_dtensors or isinstance(model, nn.DataParallel) else torch.inference_mode


def digest(tokens: Tensor) -> str:
    """A short hash of a sequence of token ids: equal sequences have equal hashes."""
    return hashlib.sha256(str(tokens.tolist()).encode()).hexdigest()[:16]


STEPS: dict[Phase, type[Steps]] = {steps.phase: steps for steps in (TrainingSteps, ScoringSteps, GenerationSteps)}
