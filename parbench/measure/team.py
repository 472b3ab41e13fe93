"""The ranks of a trial: how they meet, and how they agree."""

import os
import socket
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import Store


def join_process_group(device: torch.device, timeout: timedelta, listener: socket.socket | None) -> Store:
    """Joins under torchrun's variables, over gloo or NCCL; the store that the ranks met at.

    With `listener`, rank 0 serves the rendezvous on that open socket: the launcher that opened it knows its port
    before any rank starts, so no port is ever guessed or lost.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "nccl" if device.type == "cuda" else "gloo"
    bound = device if device.type == "cuda" else None
    store: Store
    if "PARBENCH_LISTENER" in os.environ:
        store = distributed.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            world_size=size,
            is_master=rank == 0,
            timeout=timeout,
            master_listen_fd=listener.detach() if listener else None,
        )
    else:
        store, _, _ = next(distributed.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=bound)
    return store


class Team:
    """The ranks of a process group; a rank on its own (no group) agrees with itself."""

    def __init__(self, group: ProcessGroup | None, device: torch.device) -> None:
        self._group = group
        self._device = device

    def slowest(self, seconds: float) -> float:
        """The largest of all ranks' values, the same in every rank."""
        if self._group is None or self._group.size() == 1:
            return seconds
        value = torch.tensor(seconds, dtype=torch.float64, device=self._device)
        distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self._group)
        return float(value.item())

    def meet(self) -> None:
        """Returns once every rank has come this far."""
        self.slowest(0.0)
