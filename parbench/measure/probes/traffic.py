"""What a rank exchanges with others in a step, counted call by call after the timed steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributed import ProcessGroup, distributed_c10d
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

MESH = "mesh_"
"""How the description of a process group begins that is one axis of a device mesh, before the axis's name."""

MAX_STEPS = 64
"""A longer cycle is not counted: it would take longer than the answer is worth."""


class Call(NamedTuple):
    """A call to a process group of `ranks` ranks, which is `axis` of a mesh if that has names, and what it is given."""

    kind: str
    axis: str | None
    ranks: int
    given_bytes: int


class Exchange(NamedTuple):
    """A number of calls to process groups, and the bytes of the tensors that they were given."""

    calls: int
    given_bytes: int


def count_calls(step: Callable[[int], None], steps: range) -> list[Call]:
    """The calls to process groups that `steps` make, in their order."""
    counter = CollectiveCounter()
    with counter:
        for index in steps:
            step(index)
    return counter.calls


def sum_up(calls: Sequence[Call], steps: int) -> TrafficRecord:
    """Calls and bytes of a step, the mean of so many."""
    return TrafficRecord(calls=len(calls) / steps, given_bytes=sum(call.given_bytes for call in calls) / steps)


class CollectiveCounter(TorchDispatchMode):
    """Notes the operators on process groups that run while it is entered, in their order.

    Every call comes through torch's dispatcher, also those of DDP's reducer and of autograd's threads, which take over
    the modes of the thread that calls them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    @property
    def exchanges(self) -> dict[str, Exchange]:
        """The calls of each kind, and the bytes that they were given."""
        kinds = dict.fromkeys(call.kind for call in self.calls)
        sizes = {kind: [call.given_bytes for call in self.calls if call.kind == kind] for kind in kinds}
        return {kind: Exchange(len(each), sum(each)) for kind, each in sizes.items()}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            # Its own dispatch turns the operator into exchanges, which then come through here.
            return NotImplemented
        kwargs = kwargs or {}
        if func.namespace in NAMESPACES:
            self._note(func, args, kwargs)
        return func(*args, **kwargs)

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        names = [argument.name for argument in func._schema.arguments]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        group = next((_as_group(arguments[name]) for name in GROUP if name in arguments), None)
        if group is not None:
            given_bytes = 0 if func._opname in RECEIVING else _count_bytes(arguments)
            self.calls.append(Call(kind_of(func._opname), _axis_of(group), group.size(), given_bytes))


def kind_of(operator: str) -> str:
    """The kind of an operator, such as `all_gather` for `_allgather_base_`; of one that is not known, its own name."""
    name = operator.strip("_")
    return next((kind for kind, beginnings in KINDS.items() if name.startswith(beginnings)), name)


def _as_group(argument: Any) -> ProcessGroup:
    """The process group that an operator names, or is given in a box."""
    if isinstance(argument, str):
        return distributed_c10d._resolve_process_group(argument)  # type: ignore[attr-defined, arg-type]
    return ProcessGroup.unbox(argument)


def _axis_of(group: ProcessGroup) -> str | None:
    name = group.group_desc.removeprefix(MESH)
    return None if name in (group.group_desc, "default") else name


def _count_bytes(arguments: Mapping[str, Any]) -> int:
    tensors = [arguments[name] for name in TENSORS if name in arguments]
    return sum(leaf.nbytes for leaf in pytree.tree_leaves(tensors) if isinstance(leaf, Tensor))
