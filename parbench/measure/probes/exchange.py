"""The operations between all ranks whose times make a machine's curves, each as the strategies call it."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, distributed

from parbench.records.curves import Operation

# torch 2.13 has new names for these two, and warns where the old ones are called.
_all_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
_reduce_scatter = getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor


def prepare_exchange(operation: Operation, given: Tensor, received: Tensor) -> Callable[[], object]:
    """The operation between all ranks of the default group, to be called once for each exchange.

    `given` and `received` are of equal size, which is the size of the operation as nccl-tests counts it
    (doc/PERFORMANCE.md there): of the whole tensor, where each rank has a part.
    """
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    part = len(given) // ranks
    match operation:
        case "all_reduce":
            return partial(distributed.all_reduce, given)
        case "all_gather":
            return partial(_all_gather, received, given[:part])
        case "reduce_scatter":
            return partial(_reduce_scatter, received[:part], given)
        case "all_to_all":
            return partial(distributed.all_to_all_single, received, given)
        case "p2p":
            send = distributed.P2POp(distributed.isend, given, (rank + 1) % ranks)
            receive = distributed.P2POp(distributed.irecv, received, (rank - 1) % ranks)
            return partial(_pass_on, [send, receive])


def _pass_on(operations: list[distributed.P2POp]) -> None:
    for request in distributed.batch_isend_irecv(operations):
        request.wait()
