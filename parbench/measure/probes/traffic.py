"""What a rank exchanges with others in a step, counted call by call after the timed steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from parbench.records.trial import TrafficRecord

NAMESPACES = ("c10d", "_c10d_functional")

GROUP = ("process_group", "group_name")
"""The arguments that an operator of these namespaces has if it exchanges something."""

TENSORS = ("input", "inputs", "input_tensor", "input_tensors", "input_list", "tensor", "tensors")
"""The arguments of these namespaces' operators that hold what a rank hands over, or what it receives."""

RECEIVING = ("recv_", "recv_any_source_", "irecv", "barrier", "monitored_barrier_")
"""Operators that are given room for tensors, and hand none over."""

KINDS = {
    "all_reduce": ("all_reduce", "allreduce"),
    "all_gather": ("all_gather", "allgather"),
    "all_to_all": ("all_to_all", "alltoall"),
    "reduce_scatter": ("reduce_scatter",),
    "broadcast": ("broadcast",),
    "send": ("send", "isend"),
    "recv": ("recv", "irecv"),
}
"""Kinds of exchange, and how their operators' names begin, which differ between the namespaces."""

MAX_STEPS = 64
"""A longer cycle is not counted: it would take longer than the answer is worth."""


class Exchange(NamedTuple):
    """A number of calls to process groups, and the bytes of the tensors that they were given."""

    calls: int
    given_bytes: int


def count_traffic(step: Callable[[int], None], steps: range) -> TrafficRecord | None:
    """Calls to process groups and the bytes given to them, per step, averaged over `steps`; None for too many steps."""
    if len(steps) > MAX_STEPS:
        return None
    with CollectiveCounter() as counter:
        for index in steps:
            step(index)
    total = counter.total
    return TrafficRecord(calls=total.calls / len(steps), given_bytes=total.given_bytes / len(steps))


class CollectiveCounter(TorchDispatchMode):
    """Counts the operators on process groups that run while it is entered, by kind, and the bytes that they are given.

    Every call comes through torch's dispatcher, also those of DDP's reducer and of autograd's threads, which take over
    the modes of the thread that calls them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.exchanges: dict[str, Exchange] = {}

    @property
    def total(self) -> Exchange:
        """All kinds together."""
        each = self.exchanges.values()
        return Exchange(sum(one.calls for one in each), sum(one.given_bytes for one in each))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            # Its own dispatch turns the operator into exchanges, which then come through here.
            return NotImplemented
        kwargs = kwargs or {}
        if func.namespace in NAMESPACES:
            self._count(func, args, kwargs)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        names = [argument.name for argument in func._schema.arguments]
        if any(name in GROUP for name in names):
            arguments = {**dict(zip(names, args, strict=False)), **kwargs}
            given_bytes = 0 if func._opname in RECEIVING else _count_bytes(arguments)
            kind = kind_of(func._opname)
            calls, so_far = self.exchanges.get(kind, Exchange(0, 0))
            self.exchanges[kind] = Exchange(calls + 1, so_far + given_bytes)


def kind_of(operator: str) -> str:
    """The kind of an operator, such as `all_gather` for `_allgather_base_`; of one that is not known, its own name."""
    name = operator.strip("_")
    return next((kind for kind, beginnings in KINDS.items() if name.startswith(beginnings)), name)


def _count_bytes(arguments: Mapping[str, Any]) -> int:
    tensors = [arguments[name] for name in TENSORS if name in arguments]
    return sum(leaf.nbytes for leaf in pytree.tree_leaves(tensors) if isinstance(leaf, Tensor))
