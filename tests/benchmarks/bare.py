"""What an expert would write by hand for one cell: plain torch, no parbench. Prints tokens/s.

`python bare.py single lstm` on one device; `torchrun --nproc-per-node 2 bare.py ddp transformer` on two.
"""

import os
import sys
import sysconfig
import time
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

LAYERS, WIDTH, HEADS, VOCABULARY = 4, 128, 4, 256
LENGTH, GLOBAL_BATCH = 64, 32
WARMUP, WINDOW_S = 15, 1.5


class LSTMBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.lstm = nn.LayerNorm(WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, x):
        return x + self.lstm(self.norm(x))[0]


class AttentionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (part.view(b, t, HEADS, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(WIDTH, 2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, WIDTH))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)

    def forward(self, x):
        return x + self.table[: x.shape[1]]


def build(family):
    if family == "lstm":
        head = nn.Linear(WIDTH, VOCABULARY)
        parts = [LSTMBlock() for _ in range(LAYERS)]
    else:
        head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        parts = [Positions(), *(AttentionBlock() for _ in range(LAYERS))]
    return nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *parts, nn.LayerNorm(WIDTH), head)


def main(strategy, family):
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[rank]])
    torch.set_num_threads(1)
    model = build(family)
    if strategy == "ddp":
        distributed.init_process_group("gloo")
        model = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    text = b"".join(path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    batch, offsets = GLOBAL_BATCH // world, torch.arange(LENGTH + 1)
    order = torch.randperm((len(data) - 1) // LENGTH, generator=torch.Generator().manual_seed(0)) * LENGTH

    def step(index):
        first = (index * GLOBAL_BATCH + rank * batch) % (len(order) - batch)
        tokens = data[order[first : first + batch, None] + offsets].long()
        loss = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    start = time.perf_counter()
    for index in range(WARMUP):
        if index == WARMUP - 5:
            start = time.perf_counter()
        step(index)
    steps = torch.tensor(WINDOW_S / ((time.perf_counter() - start) / 5))
    if world > 1:
        distributed.all_reduce(steps, distributed.ReduceOp.MIN)
    start = time.perf_counter()
    for index in range(WARMUP, WARMUP + int(steps)):
        step(index)
    seconds = time.perf_counter() - start
    if rank == 0:
        print(int(steps) * GLOBAL_BATCH * LENGTH / seconds)
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
