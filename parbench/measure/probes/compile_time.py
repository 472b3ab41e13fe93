"""Where torch.compile works, and how long it has taken."""

import threading
from importlib import import_module
from importlib.util import find_spec

import torch._dynamo.utils
import torch._inductor.config


def prepare_compiler(device: torch.device) -> None:
    """On CPU, torch compiles in this process: helpers of its own would crowd a rank's cores, also in the window."""
    if device.type == "cpu":
        torch._inductor.config.compile_threads = 1
    if find_spec("tqdm"):
        # torch shows its progress, to nobody here, and each rank would leave the semaphore of tqdm's lock behind.
        import_module("tqdm").tqdm.set_lock(threading.RLock())


def compile_seconds() -> float:
    """Seconds spent on compiling since the process started; 0 where nothing was compiled."""
    return float(torch._dynamo.utils.calculate_time_spent().get("total_wall_time", 0.0))
