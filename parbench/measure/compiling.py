"""How long torch.compile has taken so far in this process."""

import torch._dynamo.utils


def compile_seconds() -> float:
    """Seconds spent on compiling since the process started; 0 where nothing was compiled."""
    return float(torch._dynamo.utils.calculate_time_spent().get("total_wall_time", 0.0))
