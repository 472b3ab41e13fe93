"""Where torch.compile works, and how long it has taken."""

import torch._dynamo.utils
import torch._inductor.config


def compile_here() -> None:
    """Compiles in this process: helpers of its own would crowd a rank's cores, also in the window."""
    torch._inductor.config.compile_threads = 1


def compile_seconds() -> float:
    """Seconds spent on compiling since the process started; 0 where nothing was compiled."""
    return float(torch._dynamo.utils.calculate_time_spent().get("total_wall_time", 0.0))
