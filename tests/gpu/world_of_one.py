"""`python -m tests.gpu.world_of_one SCENARIO OUT [--kind cpu]`: all cells of one device, in this one process.

A trial costs seconds, and there are more strategies × families × precisions than fit into minutes. Here every cell sets
up, takes the same steps as `single`, and is compared with it.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from parbench.campaign.tasks import Task, assign
from parbench.data.batches import Batches, StackedBatches
from parbench.data.corpus import prepare
from parbench.measure.job import make_batches
from parbench.measure.team import Role, set_precision
from parbench.plan.cells import Cell, Plan
from parbench.plan.reading import read_plan
from parbench.results.deviations import PARITY_TOLERANCE
from parbench.system.devices import detect
from parbench.training.workload import Workload

STEPS = 5


def main() -> None:
    """Writes, for each cell, its losses and whether they are the reference's."""
    with open_world() as (plan, out, device, folder):
        results: dict[str, dict[str, Any]] = {}
        references: dict[str, list[float]] = {}
        for cell in plan.runnable:
            results[cell.record.id] = result = try_cell(plan, cell, device, folder)
            key = f"{cell.record.workload}/{cell.record.global_batch}"
            if cell.record.is_reference and result["ok"]:
                references.setdefault(key, result["losses"])
            judge(result, references.get(key), cell.record.precision, exact=cell.record.exact)
            out.write_text(json.dumps(results))


@contextmanager
def open_world() -> Iterator[tuple[Plan, Path, torch.device, Path]]:
    """The plan of the scenario on the command line, the file for results, the device, and a folder for a while.

    The process has a process group of its own as long as the block runs.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", default="cuda")
    options = parser.parse_args()
    plan = read_plan(options.scenario, detect(), [f"devices.kind={options.kind}"])
    device = torch.device(options.kind, 0) if options.kind == "cuda" else torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group(
            "nccl" if options.kind == "cuda" else "gloo",
            store=distributed.FileStore(f"{folder}/store", 1),
            rank=0,
            world_size=1,
            timeout=timedelta(minutes=5),
        )
        yield plan, options.out, device, Path(folder)
        distributed.destroy_process_group()


def try_cell(plan: Plan, cell: Cell, device: torch.device, folder: Path) -> dict[str, Any]:
    """The losses of a cell's first steps, and the type of its parameters; or what it raised."""
    try:
        return {"ok": True, **take_steps(plan, cell, device, folder)}
    except Exception as error:  # noqa: BLE001 - whatever a cell raises is its result
        return {"ok": False, "error": f"{type(error).__name__}: {error}", "losses": []}


def take_steps(plan: Plan, cell: Cell, device: torch.device, folder: Path) -> dict[str, Any]:
    """Takes some steps."""
    strategy, batches = set_up(plan, cell, device, folder)
    losses = [strategy.step(batches.training(step)) for step in range(STEPS)]
    values = [float(loss.reshape(-1)[0]) for loss in losses if loss is not None]
    types = sorted({str(parameter.dtype) for parameter in strategy.model.parameters()})
    strategy.close()
    return {"losses": values, "parameters": types}


def set_up(plan: Plan, cell: Cell, device: torch.device, folder: Path) -> tuple[Any, Batches | StackedBatches]:
    """The cell's strategy as a worker sets it up, and its batches."""
    spec = cell.workload
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=folder)
    task = Task(purpose="measure", cell=cell, key=cell.record.key, models=cell.record.models)
    role = Role.of(assign(plan, task, corpus), 0, 0)
    if device.type == "cuda":
        set_precision(role.spec.precision)
    workload = Workload(role.spec, corpus, seed=0, device=device)
    strategy = role.make_strategy()
    strategy.setup(workload, 0, role.context(distributed.group.WORLD if role.layout.lanes == 1 else None))
    return strategy, make_batches(workload, 0, role.layout.stacked)


def judge(result: dict[str, Any], expected: list[float] | None, precision: str, *, exact: bool) -> None:
    """Adds the largest distance from the reference's losses, and whether it is too large."""
    if not result["ok"] or expected is None or not exact:
        return
    away = max((abs(a - b) for a, b in zip(result["losses"], expected, strict=True)), default=float("inf"))
    result |= {"deviation": away, "ok": away <= PARITY_TOLERANCE[precision]}


if __name__ == "__main__":
    main()
