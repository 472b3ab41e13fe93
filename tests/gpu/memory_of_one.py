"""`python -m tests.gpu.memory_of_one SCENARIO OUT [--kind cpu]`: what cells of one device allocate, and were to.

Cells run one after another in this process, as in `world_of_one`; then each of them is rehearsed on fake tensors.
"""

import gc
import json
from pathlib import Path
from typing import Any

import torch

from parbench.plan.cells import Cell, Plan
from tests.gpu.world_of_one import open_world, take_steps
from tests.support.predictions import predict


def main() -> None:
    """Writes, for each cell, the predicted peak in bytes and, where torch counts it, the allocated one."""
    with open_world() as (plan, out, device, folder):
        cells = {cell.record.id: cell for cell in plan.runnable}
        allocated = {name: measure(plan, cell, device, folder) for name, cell in cells.items()}
    results: dict[str, dict[str, Any]] = {}
    for name, cell in cells.items():
        prediction = predict(plan, cell, 0)
        results[name] = {"allocated": allocated[name], "predicted": prediction.peak, **prediction.model_dump()}
        out.write_text(json.dumps(results))


def measure(plan: Plan, cell: Cell, device: torch.device, folder: Path) -> int | None:
    """The peak of allocated bytes over a few steps, beyond what was allocated before; None on CPU."""
    gc.collect()
    if device.type == "cpu":
        take_steps(plan, cell, device, folder)
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    take_steps(plan, cell, device, folder)
    return torch.cuda.max_memory_allocated(device) - before


if __name__ == "__main__":
    main()
