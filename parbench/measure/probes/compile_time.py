"""Where torch.compile runs and keeps its results, how long it has taken, and how much its caches had already."""

import os
import tempfile
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch._dynamo.utils
import torch._inductor.config


class Compilation(NamedTuple):
    """What torch.compile has done: seconds, graphs that came from its caches on disk, and graphs that did not."""

    seconds: float
    cache_hits: int
    cache_misses: int

    def since(self, before: "Compilation") -> "Compilation":
        """What it has done since an earlier reading."""
        return Compilation._make(now - then for now, then in zip(self, before, strict=True))


def prepare_compiler(device: torch.device, threads: int) -> None:
    """Lets torch compile in as many processes as the rank has threads, so that ranks share the machine's cores.

    On CPU, in this process alone: others would take the rank's cores from its steps.
    """
    torch._inductor.config.compile_threads = 1 if device.type == "cpu" else threads
    if find_spec("tqdm"):
        # torch.compile shows a progress bar with tqdm, whose default lock would leave a semaphore behind in every rank.
        import_module("tqdm").tqdm.set_lock(threading.RLock())


def use_fresh_caches(folder: Path, rank: int) -> None:
    """Has torch and Triton keep what they compile in a new folder of this rank, inside of a trial's folder.

    Each rank has its own: what one rank compiles is not found by another that happens to come later.
    """
    caches = tempfile.mkdtemp(prefix=f"rank{rank}-compiled-", dir=folder.resolve())
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = caches
    os.environ["TRITON_CACHE_DIR"] = f"{caches}/triton"


def read_compilation() -> Compilation:
    """What torch.compile has done in this process so far. A graph that no cache may hold counts as a miss.

    Inductor looks for every graph in its cache, also for those that autograd's cache has: that refers to inductor's.
    """
    graphs = torch._dynamo.utils.counters["inductor"]
    return Compilation(
        seconds=float(torch._dynamo.utils.calculate_time_spent().get("total_wall_time", 0.0)),
        cache_hits=int(graphs["fxgraph_cache_hit"]),
        cache_misses=int(graphs["fxgraph_cache_miss"] + graphs["fxgraph_cache_bypass"]),
    )
