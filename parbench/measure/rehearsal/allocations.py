"""The memory that fake tensors would take if they were real: a ledger of what comes and goes, and what for."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Literal, Self

import torch
from torch import Tensor, UntypedStorage
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils.weak import WeakIdKeyDictionary

from parbench.measure.rehearsal.replacing import wrapped

Kind = Literal["parameters", "gradients", "optimizer_state", "activations", "other"]

CUDA_BLOCK = 512
"""CUDA memory is handed out in multiples of so many bytes (`kMinBlockSize` of torch's caching allocator)."""


@dataclass(eq=False)
class Block:
    """The memory of one storage: its size in bytes, what it is for, and a reference that tells when it is gone."""

    size: int
    kind: Kind
    reference: Any = None


class Allocations(TorchDispatchMode):
    """Follows the memory on a kind of device of the fake tensors that are made or resized while it is entered.

    It is entered within the mode of those tensors. A block that is made while gradients are recorded holds activations,
    unless it is labelled, also later. What is resized is a buffer of communication, such as FSDP's for parameters that
    are gathered for a while.

    torch's own `MemTracker` takes one forward pass of a module, so no micro-batches, and it hooks itself to modules and
    parameters, where DDP's buckets and schedules that split the backward pass cannot be seen.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device_type = device.type
        self._granule = CUDA_BLOCK if device.type == "cuda" else 1
        self._blocks: Any = WeakIdKeyDictionary()
        self._changes: list[tuple[Block, int]] = []

    def __enter__(self) -> Self:
        self._mode = active_fake_mode()
        self._stack = ExitStack()
        # Storages are resized past the dispatcher.
        self._stack.enter_context(wrapped(UntypedStorage, "resize_", self._with_note))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._stack.close()

    def start(self) -> None:
        """Forgets what is gone by now."""
        self._changes = [(block, block.size) for block in self._blocks.values()]

    def label(self, kind: Kind, tensors: Iterable[Tensor]) -> None:
        """Says what the memory of these tensors is for, now and as long as it has been theirs."""
        for tensor in _plain(tensors):
            if block := self._blocks.get(tensor.untyped_storage()):
                block.kind = kind

    def alive(self) -> Mapping[Kind, int]:
        """The bytes of each kind that there are now."""
        now: Counter[Kind] = Counter()
        for block in self._blocks.values():
            now[block.kind] += block.size
        return now

    def largest(self, kind: Kind) -> int:
        """The most bytes that a kind took at any time since the start."""
        return max((now[kind] for now in self._replay()), default=0)

    def at_peak(self) -> Mapping[Kind, int]:
        """The bytes of each kind when all of them together took the most since the start."""
        highest, peak = 0, Counter[Kind]()
        for now in self._replay():
            if (total := now.total()) > highest:
                highest, peak = total, Counter(now)
        return peak

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            # Its own dispatch turns the operator into others on this rank's tensors, which then come through here.
            return NotImplemented
        if func is torch.ops._c10d_functional.wait_tensor.default:
            # Only for fake tensors does it make a new one.
            return args[0]
        result = func(*args, **(kwargs or {}))
        for tensor in _plain(leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)):
            if self._follows(tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follows(self, tensor: Tensor) -> bool:
        """Whether it would be there, and is not one that torch makes to learn its shape."""
        is_own = isinstance(tensor, FakeTensor) and tensor.fake_mode is self._mode
        return is_own and tensor.device.type == self._device_type

    def _follow(self, storage: UntypedStorage) -> None:
        if storage not in self._blocks:
            block = Block(0, "activations" if torch.is_grad_enabled() else "other")
            block.reference = weakref.ref(storage, partial(self._free, block))
            self._blocks[storage] = block
            self._resize(block, storage.nbytes())

    def _free(self, block: Block, _: Any) -> None:
        self._resize(block, 0)

    def _resize(self, block: Block, size: int) -> None:
        size = -(-size // self._granule) * self._granule
        self._changes.append((block, size - block.size))
        block.size = size

    def _with_note(self, resize: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(resize)
        def call(storage: UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            if block := self._blocks.get(storage):
                block.kind = "other"
                self._resize(block, storage.nbytes())
            return result

        return call

    def _replay(self) -> Iterator[Counter[Kind]]:
        """What each kind took, after every change; always the same object."""
        now: Counter[Kind] = Counter()
        for block, change in self._changes:
            now[block.kind] += change
            yield now


def _plain(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors, and instead of those that only hold others what they hold."""
    for tensor in tensors:
        if is_traceable_wrapper_subclass(tensor):
            held = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
            yield from _plain(each for each in held if isinstance(each, Tensor))
        else:
            yield tensor
