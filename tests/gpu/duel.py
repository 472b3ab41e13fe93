"""`python -m tests.gpu.duel SCENARIO OUT [--kind cpu]`: a step of parbench and one by hand, in turns on one device.

Both are in this process, where they find the same clock rate, memory and kernels.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parbench.data.corpus import prepare
from parbench.measure.clock import time_steps
from parbench.measure.probes.matmul import measure_matmul_flops
from parbench.plan.cells import Cell
from tests.gpu.nanogpt import GPT, make_step
from tests.gpu.world_of_one import open_world, set_up

WARMUP, TURNS, STEPS = 5, 12, 8
Step = Callable[[int], Tensor | None]


def main() -> None:
    """Writes the times of both and the median of their ratios, and what part of the measured peak parbench uses."""
    with open_world() as (plan, out, device, folder):
        cell = next(each for each in plan.runnable if each.record.label == "single" and not each.workload.compile)
        strategy, batches = set_up(plan, cell, device, folder)
        model, by_hand = make_by_hand(cell, device, folder)
        arms: list[Step] = [lambda index: strategy.step(batches.training(index)), by_hand]
        losses = [warm_up(step) for step in arms]
        ours, bare = take_turns(arms, device)
        speed = cell.workload.global_batch * cell.workload.seq_len * STEPS / statistics.median(ours)
        result: dict[str, Any] = {
            "ours_s": ours,
            "bare_s": bare,
            "ratio": statistics.median(other / own for own, other in zip(ours, bare, strict=True)),
            "first_losses": losses,
            "parameters": [sum(each.numel() for each in arm.parameters()) for arm in (strategy.model, model)],
            "tokens_per_s": speed,
            "matmul_flops": measure_matmul_flops(device, cell.workload.precision),
        }
        result["share_of_matmul_flops"] = speed * (cell.record.flops_per_token or 0.0) / result["matmul_flops"]
        out.write_text(json.dumps(result))


def make_by_hand(cell: Cell, device: torch.device, folder: Path) -> tuple[GPT, Step]:
    """The same model by hand, and its step."""
    spec, family = cell.workload, cell.workload.model
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=folder)
    data = torch.from_file(corpus.path, size=corpus.tokens, dtype=getattr(torch, corpus.dtype))
    model = GPT(family.layers, family.d_model, family.heads, spec.vocab_size, spec.seq_len).to(device)
    return model, make_step(model, data, spec.global_batch, spec.seq_len, device)


def warm_up(step: Step) -> float:
    """The loss of the first step."""
    first, *_ = [float(step(index)) for index in range(WARMUP)]
    return first


def take_turns(arms: list[Step], device: torch.device) -> list[list[float]]:
    """The seconds of each arm's turns, which go forward and back: what comes before a turn may matter."""
    times: list[list[float]] = [[] for _ in arms]
    for turn in range(TURNS):
        first = WARMUP + turn * STEPS
        for index in range(len(arms))[:: 1 if turn % 2 else -1]:
            times[index].append(time_steps(arms[index], range(first, first + STEPS), device).total_s)
    return times


if __name__ == "__main__":
    main()
