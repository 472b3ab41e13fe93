"""Runs one script by itself and prints tokens/s of the whole system, as somebody would who has no parbench."""

import os
import sys
import time

import torch
from torch import distributed

from tests.benchmarks.bare import (
    data_parallel,
    ddp,
    ensemble,
    fsdp,
    local_sgd,
    pipeline,
    single,
    task_pool,
    tensor_parallel,
    zero1,
)
from tests.benchmarks.bare.models import GLOBAL_BATCH, LENGTH, Setting

SCRIPTS = {
    "single": single.build,
    "data_parallel": data_parallel.build,
    "ddp": ddp.build,
    "zero1": zero1.build,
    "fsdp": fsdp.build,
    "tensor_parallel": tensor_parallel.build,
    "naive": pipeline.naive,
    "gpipe": pipeline.gpipe,
    "1f1b": pipeline.one_forward_one_backward,
    "interleaved_1f1b": pipeline.interleaved_1f1b,
    "zero_bubble": pipeline.interleaved_zero_bubble,
    "zbv": pipeline.zbv,
    "dualpipev": pipeline.dualpipev,
    "local_sgd": local_sgd.build,
    "task_pool": task_pool.build,
    "ensemble": ensemble.build,
}
WARMUP, WINDOW_S = 15, 1.5


def main(script: str, family: str, tokens: str) -> None:
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if script != "data_parallel":
        os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[rank]])
    torch.set_num_threads(1)
    if ranks > 1:
        distributed.init_process_group("gloo")

    def slowest(seconds):
        value = torch.tensor(seconds)
        if ranks > 1:
            distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return float(value)

    step = SCRIPTS[script](Setting(family, tokens, rank, ranks))
    for index in range(WARMUP):
        if index == WARMUP - 5:
            start = time.perf_counter()
        step(index)
    steps = int(WINDOW_S / slowest((time.perf_counter() - start) / 5))
    start = time.perf_counter()
    for index in range(WARMUP, WARMUP + steps):
        step(index)
    seconds = slowest(time.perf_counter() - start)
    models = {"task_pool": ranks, "ensemble": ensemble.MODELS}.get(script, 1)
    if rank == 0:
        print(models * steps * GLOBAL_BATCH * LENGTH / seconds)
    if ranks > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
