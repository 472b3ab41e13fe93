"""Peers that say nothing: a process group that returns at once, and what DistributedDataParallel asks of its peers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from torch import Tensor, distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import distributed as ddp
from torch.testing._internal.distributed.fake_pg import FakeStore

from parbench.measure.rehearsal.replacing import replaced, wrapped


@contextmanager
def fake_peers(rank: int, ranks: int) -> Iterator[None]:
    """This process is one of `ranks` ranks, of which there are no others, while the block runs."""
    distributed.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    try:
        with ExitStack() as stack:
            stack.enter_context(wrapped(distributed, "all_reduce", _answering))
            stack.enter_context(replaced(distributed, "Reducer", _Reducer))
            stack.enter_context(replaced(distributed, "Logger", _Silent))
            stack.enter_context(replaced(ddp, "_verify_param_shape_across_processes", lambda *_: None))
            stack.enter_context(replaced(ddp, "_sync_module_states", lambda *_, **__: None))
            stack.enter_context(wrapped(ddp.DistributedDataParallel, "forward", _with_hook))
            yield
    finally:
        distributed.destroy_process_group()


class _Reducer(distributed.Reducer):  # type: ignore[name-defined, misc]
    """DDP's reducer, without the exchange in which ranks agree on new buckets."""

    def _rebuild_buckets(self) -> bool:
        return False

    def set_logger(self, logger: Any) -> None:
        """There is nothing to log."""


class _Silent:
    """A logger that takes any call."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes what a logger takes."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Answer:
    """Work that is done. Its future hands the tensor back, and that of the fake group nothing."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def wait(self) -> bool:
        return True

    def get_future(self) -> Future[list[Tensor]]:
        future: Future[list[Tensor]] = Future()
        future.set_result([self._tensor])
        return future


def _answering(all_reduce: Callable[..., Any]) -> Callable[..., _Answer | None]:
    @wraps(all_reduce)
    def call(tensor: Tensor, *arguments: Any, **named: Any) -> _Answer | None:
        work = all_reduce(tensor, *arguments, **named)
        return None if work is None else _Answer(tensor)

    return call


def _with_hook(forward: Callable[..., Any]) -> Callable[..., Any]:
    """DDP's forward pass. Where no hook exchanges gradients, one does that computes the same as the reducer by itself.

    The reducer waits for the future of the group's own work, and hooks for one that hands the tensor back.
    """

    @wraps(forward)
    def call(self: Any, *inputs: Any, **named: Any) -> Any:
        if not self._comm_hooks:
            self.register_comm_hook(self.process_group, allreduce_hook)
        return forward(self, *inputs, **named)

    return call
