"""Where torch.compile runs, and how long it has taken."""

import threading
from importlib import import_module
from importlib.util import find_spec

import torch._dynamo.utils
import torch._inductor.config


def prepare_compiler(device: torch.device, threads: int) -> None:
    """Lets torch compile in as many processes as the rank has threads, so that ranks share the machine's cores.

    On CPU, in this process alone: others would take the rank's cores from its steps.
    """
    torch._inductor.config.compile_threads = 1 if device.type == "cpu" else threads
    if find_spec("tqdm"):
        # torch.compile shows a progress bar with tqdm, whose default lock would leave a semaphore behind in every rank.
        import_module("tqdm").tqdm.set_lock(threading.RLock())


def read_compile_seconds() -> float:
    """Seconds that this process has spent on compiling so far; 0 where nothing was compiled."""
    return float(torch._dynamo.utils.calculate_time_spent().get("total_wall_time", 0.0))
