"""Runs one script by itself and prints tokens/s of the whole system, as somebody would who has no parbench.

`python -m tests.benchmarks.bare single train lstm TOKENS`: a module, a function, the model's family and a file.
"""

import os
import sys
import time
from importlib import import_module

import torch
from torch import distributed

from tests.benchmarks.bare.ensemble import MODELS
from tests.benchmarks.bare.models import GLOBAL_BATCH, LENGTH, Setting

WARMUP, WINDOW_S = 15, 1.5


def main(module: str, function: str, family: str, tokens: str) -> None:
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    cores = sorted(os.sched_getaffinity(0))
    if module != "data_parallel":
        os.sched_setaffinity(0, [cores[rank % len(cores)]])
    torch.set_num_threads(1)
    if ranks > 1:
        distributed.init_process_group("gloo")

    def slowest(seconds):
        value = torch.tensor(seconds)
        if ranks > 1:
            distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return float(value)

    script = getattr(import_module(f"tests.benchmarks.bare.{module}"), function)
    step = script(Setting(family, tokens, rank, ranks))
    for index in range(WARMUP):
        if index == WARMUP - 5:
            start = time.perf_counter()
        step(index)
    steps = int(WINDOW_S / slowest((time.perf_counter() - start) / 5))
    start = time.perf_counter()
    for index in range(WARMUP, WARMUP + steps):
        step(index)
    seconds = slowest(time.perf_counter() - start)
    models = {"task_pool": ranks, "ensemble": MODELS * ranks}.get(module, 1)
    if rank == 0:
        print(models * steps * GLOBAL_BATCH * LENGTH / seconds)
    if ranks > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
