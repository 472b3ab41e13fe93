"""A function in fresh ranks, forked from a server that has torch imported: a core and a thread each, gloo between."""

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE_S

FORK_SERVER = get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["parbench.measure.preload", "tests.benchmarks.duel"])


def in_ranks(count: int, function: Callable[..., Any], *arguments: Any, pin: bool = True) -> list[Any]:
    """What `function(rank, *arguments)` returns in each of `count` ranks; unless `pin`, they run on any core."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(count, mp_context=FORK_SERVER) as pool,
    ):
        futures = [
            pool.submit(_as_rank, rank, count, Path(folder) / "store", pin, function, arguments)
            for rank in range(count)
        ]
        return [future.result() for future in futures]


def _as_rank(rank: int, count: int, store: Path, pin: bool, function: Callable[..., Any], arguments: Any) -> Any:
    import torch
    from torch import distributed

    if pin:
        os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[rank]])
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=timedelta(seconds=PATIENCE_S)
    )
    result = function(rank, *arguments)
    distributed.destroy_process_group()
    return result
