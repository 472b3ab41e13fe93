"""Follows the memory of tensors: which storages live at each moment of some steps, and how large they are."""

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

_META = torch.device("meta")


class Event(NamedTuple):
    """From here on, the storage of that number has `size` bytes; 0 once it is gone."""

    storage: int
    size: int


class _Known(NamedTuple):
    number: int
    gone: "weakref.ref[torch.UntypedStorage]"


class StorageLog(TorchDispatchMode):
    """Logs when a storage on `device` appears, changes its size and goes, while the log is entered.

    It sees the results of all operators that come through torch's dispatcher, also in autograd's threads; other threads
    enter it themselves. It does not see what a kernel allocates for itself, nor what compiled code does. A storage has
    the same number for as long as it lives, and `events` are in the order in which they happened.

    forward: the storages made outside of backward passes, or made again in them by a checkpoint. Whoever enters the log
    sets `updating` while the optimizer is at work, whose results are not among them.
    exchanged: those that were handed to collectives or received into, and those whose memory was taken away and given
    back, as FSDP does with the parameters that it gathers.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[Event] = []
        self.forward: set[int] = set()
        self.exchanged: set[int] = set()
        self.updating = False
        self._device = device
        self._known: dict[int, _Known] = {}
        self._sizes: dict[int, int] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def follow(self, tensors: Iterable[Tensor]) -> set[int]:
        """The numbers of the storages of these tensors, which are followed from now on if they were not before."""
        parts = (part for tensor in tensors for part in _unwrap(tensor))
        here = (part for part in parts if part.layout == torch.strided and part.device == self._device)
        storages = [part.untyped_storage() for part in here]
        return {number for storage in storages if (number := self._follow(storage)) is not None}

    def living(self) -> set[int]:
        """The numbers of the storages that live now."""
        return {number for number, size in list(self._sizes.items()) if size}

    def count_bytes(self, numbers: Iterable[int]) -> int:
        """What the storages of these numbers take now."""
        return sum(self._sizes.get(number, 0) for number in numbers)

    @contextmanager
    def following(self, threads: Iterable[Executor] = ()) -> Iterator[None]:
        """Follows what this thread allocates, and what the threads of these executors do, of which each has one."""
        with ExitStack() as stack:
            stack.enter_context(self._seeing_resizes())
            stack.enter_context(self)
            for thread in threads:
                thread.submit(self.__enter__).result()
                stack.callback(_call_in, thread, self.__exit__, None, None, None)
            yield

    @contextmanager
    def _seeing_resizes(self) -> Iterator[None]:
        """Sees when Python code resizes a storage, which is no operator."""
        resize = torch.UntypedStorage.resize_

        def resize_and_tell(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            if (number := self._follow(storage)) is not None:
                self.exchanged.add(number)
            return result

        torch.UntypedStorage.resize_ = resize_and_tell  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(hasattr(kind, "__tensor_flatten__") for kind in types):
            # Tensors that wrap others turn the operator into some on those, which then come through here.
            return NotImplemented
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.namespace == "c10d" and func._opname != "send":
            self.exchanged |= self.follow(_tensors_in((args, kwargs)))
        self.follow(_tensors_in(result))
        return result

    def _follow(self, storage: torch.UntypedStorage) -> int | None:
        """The number of a storage; None for one on another device. Those of fake tensors are on `meta`."""
        if storage.device not in (self._device, _META):
            return None
        key, size = id(storage), storage.nbytes()
        with self._lock:
            if key not in self._known:
                number = next(self._numbers)
                self._known[key] = _Known(number, weakref.ref(storage, partial(self._forget, key, number)))
                if not self.updating and not _is_in_backward_pass():
                    self.forward.add(number)
            number = self._known[key].number
            if self._sizes.get(number, 0) != size:
                self._sizes[number] = size
                self.events.append(Event(number, size))
        return number

    def _forget(self, key: int, number: int, _: object) -> None:
        """The storage is gone. Takes no lock: it may happen at any moment, also while this thread holds the lock."""
        self._known.pop(key, None)
        self._sizes[number] = 0
        self.events.append(Event(number, 0))


def _is_in_backward_pass() -> bool:
    """Whether gradients are being computed; not where a checkpoint computes activations again for them."""
    return torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled()


def _unwrap(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that hold the memory of a tensor: itself, or this rank's parts of one that wraps others."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for part in (getattr(tensor, name) for name in names):
        if isinstance(part, Tensor):  # and not the mesh that they are spread over
            yield from _unwrap(part)


def _tensors_in(values: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _call_in(thread: Executor, function: Callable[..., object], *arguments: object) -> None:
    thread.submit(function, *arguments).result()
