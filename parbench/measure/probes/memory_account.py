"""Takes the memory of a model apart: what it keeps, what its passes make, what it exchanges, and the rest."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from parbench.measure.probes.memory import read_anonymous
from parbench.measure.probes.storages import Event, StorageLog
from parbench.records.memory_account import GrowthRecord, MemoryAccountRecord, MemoryPart, MemoryPartsRecord
from parbench.strategies.base import Strategy


class MemoryAccount:
    """The account of one model's memory on `device`. It is opened before the model's set-up."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = read_anonymous() if device.type == "cpu" else None
        self._growth: dict[str, int] = {}
        self._parameters: list[nn.Parameter] = []

    def end_setup(self, strategy: Strategy[Any]) -> None:
        """Notes the parameters as they are between steps, because wrappers may show others in their place later."""
        modules = (strategy.model, *strategy.copies())
        self._parameters = [parameter for module in modules for parameter in module.parameters()]
        self.end_phase("setup")

    def end_phase(self, phase: Literal["setup", "warm_up", "window"]) -> None:
        """Notes by how much the process has grown."""
        now = read_anonymous()
        if self._before is not None and now is not None:
            self._growth[phase] = now - self._before

    def take(
        self, strategy: Strategy[Any], step: Callable[[int], None], steps: range, *, compiled: bool
    ) -> MemoryAccountRecord:
        """Takes the steps, and accounts for all but the first, which shows what a step leaves for the next.

        `compiled` code is not followed: it hides what it allocates, and would run uncompiled while it is followed.
        """
        watch = _Watch(self._device, strategy, self._parameters)
        with watch.noting_gradients(), nullcontext() if compiled else watch.log.following(strategy.own_threads()):
            for index in steps:
                watch.start_step()
                if index == steps[1]:
                    watch.start_account()
                step(index)
            watch.end_steps()
        at_peak, largest = watch.weigh()
        if self._device.type == "cuda":
            unseen = torch.cuda.max_memory_allocated(self._device) - at_peak.total
            at_peak = at_peak.model_copy(update={"rest": at_peak.rest + max(0, unseen)})
        return MemoryAccountRecord(
            largest=largest,
            at_peak=None if compiled and self._device.type == "cpu" else at_peak,
            growth=GrowthRecord(**self._growth) if self._growth else None,
        )


class _Watch:
    """What a strategy's storages are, as far as its steps have shown."""

    def __init__(self, device: torch.device, strategy: Strategy[Any], parameters: Sequence[nn.Parameter]) -> None:
        self.log = StorageLog(device)
        self._device = device
        self._model = strategy.model
        self._resting = parameters
        self._optimizers: Sequence[Optimizer] = strategy.optimizers() if strategy.workload.trains else ()
        self._parameters: set[int] = set()
        self._gathered: set[int] = set()
        self._state: set[int] = set()
        self._gradients: set[int] = set()
        self._left_over: set[int] = set()
        self._kept: dict[str, int] = {}
        self._start = 0

    def start_step(self) -> None:
        """Finds what is there between two steps."""
        self.log.updating = False
        self._parameters |= self.log.follow(self._resting)
        # Without a backward pass FSDP leaves some of them gathered.
        self._gathered |= self.log.follow(self._model.parameters())
        for optimizer in self._optimizers:
            self._state |= self.log.follow(_state_of(optimizer))

    def start_account(self) -> None:
        """Everything from here on counts."""
        self._start = len(self.log.events)
        self._left_over = self.log.living()
        self._kept["parameters"] = self.log.count_bytes(self._parameters)
        self._kept["optimizer_state"] = self.log.count_bytes(self._state)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    @contextmanager
    def noting_gradients(self) -> Iterator[None]:
        """Finds the gradients whenever an optimizer is about to step."""
        with ExitStack() as hooks:
            for optimizer in self._optimizers:
                hooks.callback(optimizer.register_step_pre_hook(self._note_gradients).remove)
            yield

    def end_steps(self) -> None:
        """Finds gradients that are still there, where no optimizer's step was seen: a graph may have replayed it."""
        if not self._gradients:
            self._note_gradients()

    def weigh(self) -> tuple[MemoryPartsRecord, MemoryPartsRecord]:
        """The parts at the peak, and each at its largest; parameters and the optimizer's state as they rest."""
        at_peak, largest = weigh(self.log.events, self._start, self._kind_of)
        return MemoryPartsRecord(**at_peak), MemoryPartsRecord(**{**largest, **self._kept})

    def _note_gradients(self, *_: object) -> None:
        stepped = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        parameters = [*self._resting, *(parameter for group in stepped for parameter in group["params"])]
        found = self.log.follow(parameter.grad for parameter in parameters if parameter.grad is not None)
        self._gradients |= found
        self._kept["gradients"] = max(self._kept.get("gradients", 0), self.log.count_bytes(found))
        self.log.updating = True

    def _kind_of(self, storage: int) -> MemoryPart:
        if storage in self._parameters:
            return "parameters"
        if storage in self._state:
            return "optimizer_state"
        if storage in self._gradients:
            return "gradients"
        if storage in self.log.exchanged or storage in self._gathered:
            return "buffers"
        made = storage in self.log.forward and storage not in self._left_over
        return "activations" if made else "rest"


def weigh(events: Sequence[Event], start: int, kind_of: Callable[[int], str]) -> tuple[Counter[str], Counter[str]]:
    """The bytes of each kind when all together are the most, and the most bytes of each kind.

    What counts is the moment before event number `start` and all that follow.
    """
    sizes: dict[int, int] = {}
    present: Counter[str] = Counter()
    at_peak: Counter[str] = Counter()
    largest: Counter[str] = Counter()
    for place, (storage, size) in enumerate(events, start=1):
        present[kind_of(storage)] += size - sizes.get(storage, 0)
        sizes[storage] = size
        if place >= start:
            largest |= present
            if present.total() > at_peak.total():
                at_peak = present.copy()
    return at_peak, largest


def _state_of(optimizer: Optimizer) -> Iterator[Tensor]:
    """The tensors of its state. ZeroRedundancyOptimizer has an optimizer of its own for its part of the parameters."""
    stepping: Optimizer = getattr(optimizer, "optim", optimizer)
    return (value for state in stepping.state.values() for value in state.values() if isinstance(value, Tensor))
