"""What a user's own package may bring: a strategy, a model family, and a strategy with every way to go wrong."""

import os
import signal
import subprocess
import sys
import time
from typing import Literal

from parbench.scenario import Options
from parbench.strategies.base import Layout, Strategy
from parbench.workloads.base import Family


class Averaging(Strategy[Options]):
    """Gradients averaged by hand, one all-reduce a parameter."""

    name = "averaging"

    @classmethod
    def layout(cls, options, workload, devices):
        return Layout(processes=devices.count, data_shards=devices.count)

    def setup(self, workload, job, context):
        super().setup(workload, job, context)
        self.group, self.ranks = context.group, context.ranks

    def step(self, batch):
        from torch import distributed

        loss = self.accumulate(batch)
        for parameter in self.model.parameters():
            distributed.all_reduce(parameter.grad, group=self.group)
            parameter.grad /= self.ranks
        self.updates.apply()
        return loss


class Sluggish(Strategy[Options]):
    """Burns a share of extra time in every step, as the environment says: the same cell, only slower."""

    name = "sluggish"
    scales = False

    @classmethod
    def layout(cls, options, workload, devices):
        return Layout(processes=1)

    def step(self, batch):
        started = time.perf_counter()
        loss = super().step(batch)
        extra = float(os.environ.get("SLUGGISH_EXTRA", "0"))
        until = time.perf_counter() + extra * (time.perf_counter() - started)
        while time.perf_counter() < until:
            pass
        return loss


class BagOfTokens(Family):
    """No order at all: an embedding, mixing layers of single tokens, a head."""

    kind: Literal["bag"] = "bag"
    layers: int = 2

    @property
    def n_blocks(self):
        return self.layers

    def embed(self, vocab_size, seq_len):
        from torch import nn

        return nn.Embedding(vocab_size, 8)

    def block(self, seq_len):
        from torch import nn

        return nn.Linear(8, 8)

    def head(self, vocab_size):
        from torch import nn

        return nn.Linear(8, vocab_size)


class MisbehavingOptions(Options):
    how: Literal["raise", "exit", "leave", "hang", "hang_apart", "kill", "memory", "nan", "drift", "children"] = "raise"


class Misbehaving(Averaging):
    """Does what `how` says in its third step, on its last rank."""

    name = "misbehaving"
    options_type = MisbehavingOptions

    def setup(self, workload, job, context):
        super().setup(workload, job, context)
        self.guilty, self.steps = context.rank == context.ranks - 1, 0

    def step(self, batch):
        self.steps += 1
        if self.steps == 3 and self.guilty:
            self.misbehave()
        loss = super().step(batch)
        return loss * float("nan") if self.options.how == "nan" and self.steps > 2 else loss

    def misbehave(self):  # noqa: C901 - a table of faults
        import torch

        match self.options.how:
            case "raise":
                raise RuntimeError("the third step always fails")
            case "exit":
                sys.exit(7)
            case "leave":
                os._exit(0)
            case "hang" | "children":
                if self.options.how == "children":
                    subprocess.Popen(["sleep", "3600.25"])
                time.sleep(3600)
            case "hang_apart":
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGABRT})
                time.sleep(3600)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "memory":
                torch.empty(2**50)
            case "drift":
                with torch.no_grad():
                    for parameter in self.model.parameters():
                        parameter.add_(0.1)
