"""What one step is in each phase, and what of its first steps proves that it computed the right thing."""

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
from parbench.measure.failures import finite
from parbench.records.trial import GenerationRecord
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import Strategy

Deal = Callable[[int], Batch]


class Steps(ABC):
    """Calls a strategy, step by step, and keeps what the first `verified` steps gave; `taken` steps so far.

    What is kept stays on the device until it is asked for: nothing is read back while steps are timed.
    """

    phase: ClassVar[Phase]

    def __init__(
        self, strategy: Strategy[Any], spec: WorkloadSpec, training: Deal, validation: Deal, verified: int
    ) -> None:
        self.strategy = strategy
        self.spec = spec
        self.verified = verified
        self.training = training
        self.validation = validation
        self.forward_only = forward_only(strategy.model)
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

    def window_starts(self) -> None:  # noqa: B027 - most have nothing to forget
        """From here on times count."""

    def generation(self) -> GenerationRecord | None:
        """What was generated, in the phase that does."""
        return None

    def read_losses(self) -> list[list[float]]:
        """What was kept, step by step, of each model. Raises `FloatingPointError` where a loss is NaN or infinite."""
        return [finite(loss, f"the loss of step {index}") for index, loss in enumerate(self.losses)]

    def _keep(self, index: int, loss: Tensor | None) -> None:
        self.latest = loss
        if loss is not None and index < self.verified:
            self.losses.append(loss)


class TrainingSteps(Steps):
    """A step is one update of the parameters."""

    phase = "train"

    def _take(self, index: int) -> None:
        """On the next training batch."""
        self._keep(index, self.strategy.step(self.training(index)))


class ScoringSteps(Steps):
    """A step is the loss of a batch of held-out text."""

    phase = "score"

    def _take(self, index: int) -> None:
        """Without gradients."""
        with self.forward_only():
            self._keep(index, self.strategy.evaluate(self.validation(index)))


class GenerationSteps(Steps):
    """A step is the greedy continuation of a batch of prompts."""

    phase = "generate"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tokens: list[Tensor] = []
        self._marks: list[Marks] = []
        self._has_tokens = False

    def _take(self, index: int) -> None:
        """Prompts are the starts of held-out sequences."""
        new_tokens = self.spec.generated
        with self.forward_only():
            prompts = self.validation(index).inputs[:, : self.spec.seq_len - new_tokens]
            marks = Marks(prompts.device)
            tokens = self.strategy.generate(prompts, new_tokens, marks.mark)
        self._marks.append(marks)
        self._has_tokens = tokens is not None
        if tokens is not None and index < self.verified:
            self._tokens.append(tokens)

    def window_starts(self) -> None:
        """Marks of warm-up are no part of it."""
        self._marks.clear()

    def generation(self) -> GenerationRecord:
        """The verified steps' sequences, and the window's times where this rank has the tokens."""
        if not self._has_tokens:
            return GenerationRecord()
        intervals = [marks.intervals() for marks in self._marks]
        return GenerationRecord(
            sequences=tuple(digest(sequence) for tokens in self._tokens for sequence in tokens),
            first_token_s=tuple(times[0] for times in intervals),
            token_s=tuple(time for times in intervals for time in times[1:]),
        )


def forward_only(model: nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """What a forward pass without a backward one runs in: the cheaper inference mode, where that can be.

    Sharded and split tensors (`DTensor`) lose their way in inference mode (seen with torch 2.13), and the threads of
    torch's DataParallel are not in it, while what they work on is.
    """
    split = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    return torch.no_grad if split or isinstance(model, nn.DataParallel) else torch.inference_mode


def digest(tokens: Tensor) -> str:
    """What tells one sequence of token ids from another."""
    return hashlib.sha256(str(tokens.tolist()).encode()).hexdigest()[:16]


STEPS: dict[Phase, type[Steps]] = {steps.phase: steps for steps in (TrainingSteps, ScoringSteps, GenerationSteps)}
