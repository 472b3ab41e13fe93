"""One process, two arms, step by step in turn: parbench's `single` and a bare loop. Prints the ratio of their speeds.

Launches differ by several per cent here; steps that take turns in one process share all of that.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional

from parbench.scenario import Options, WorkloadSpec
from parbench.strategies.single import Single
from parbench.training.workload import Workload
from parbench.workloads.base import FAMILIES
from parbench.workloads.corpus import prepare
from tests.benchmarks import bare

STEPS = 80


def main(family):
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    torch.set_num_threads(1)
    spec = WorkloadSpec(model=FAMILIES[family](layers=bare.LAYERS, d_model=bare.WIDTH))
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=Path())
    workload = Workload(spec, corpus, seed=0, device=torch.device("cpu"))
    batches, single = workload.batches(0), Single(Options())
    single.setup(workload, 0, None)
    model = bare.build(family)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    data, offsets = torch.from_file(corpus.path, size=corpus.tokens, dtype=torch.uint8), torch.arange(bare.LENGTH + 1)
    order = torch.randperm((corpus.tokens - 1) // bare.LENGTH) * bare.LENGTH

    def reported(index):
        single.step(batches.training(index))

    def by_hand(index):
        tokens = data[order[index * 32 : index * 32 + 32, None] + offsets].long()
        loss = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    ratios = []
    for index in range(STEPS):
        seconds = {}
        for arm in (reported, by_hand) if index % 2 else (by_hand, reported):
            started = time.perf_counter()
            arm(index)
            seconds[arm] = time.perf_counter() - started
        ratios.append(seconds[by_hand] / seconds[reported])
    print(statistics.median(ratios[10:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
