"""How the ranks of a trial meet."""

import os
import socket
from datetime import timedelta

import torch
from torch import distributed
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
