"""What a user's own package may bring: a strategy, a model family, and a strategy with every way to go wrong."""

import contextlib
import ctypes
import faulthandler
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from parbench.models.base import Family
from parbench.models.lstm import LSTM
from parbench.scenario.specs import Options
from parbench.strategies.base import Layout, Strategy

OFFSPRING = os.environ.get("OFFSPRING", "3600")
GOES_WRONG = "now it goes wrong"
"""What is in a rank's log once it hangs: a deadline that was met before says nothing of what was to be tried."""


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


class Delayed(Averaging):
    """Sleeps in every step: in its last rank, before it computes; or, in every rank, whenever a batch is dealt."""

    name = "delayed"

    class DelayedOptions(Options):
        where: Literal["rank", "data"] = "rank"
        seconds: float = 0.02

    options_type = DelayedOptions

    def setup(self, workload, job, context):
        super().setup(workload, job, context)
        self.sleeps = self.options.where == "rank" and context.rank == context.ranks - 1
        if self.options.where == "data":
            deal = workload.batches
            workload.batches = lambda number: SlowBatches(deal(number), self.options.seconds)

    def step(self, batch):
        if self.sleeps:
            time.sleep(self.options.seconds)
        return super().step(batch)


class SlowBatches:
    """Batches that come late."""

    def __init__(self, batches, seconds):
        self.batches, self.seconds = batches, seconds

    def training(self, *arguments, **named):
        time.sleep(self.seconds)
        return self.batches.training(*arguments, **named)

    def validation(self, *arguments, **named):
        return self.batches.validation(*arguments, **named)


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


class PacedBag(BagOfTokens):
    """Each block sleeps in its forward and in its backward pass, equally long whatever it computes."""

    kind: Literal["paced_bag"] = "paced_bag"
    pause_s: float = 0.02

    def block(self, seq_len):
        block = super().block(seq_len)
        block.register_forward_pre_hook(lambda *_: time.sleep(self.pause_s))
        block.register_full_backward_pre_hook(lambda *_: time.sleep(self.pause_s))
        return block


class PacedLSTM(LSTM):
    """Waits in every forward pass, so long that what the machine does besides hardly changes how long a step takes."""

    kind: Literal["paced_lstm"] = "paced_lstm"
    pause_s: float = 0.005

    def embed(self, vocab_size, seq_len):
        embedding = super().embed(vocab_size, seq_len)
        embedding.register_forward_pre_hook(lambda *_: time.sleep(self.pause_s))
        return embedding


Fault = Literal[
    "before_group", "import", "setup", "raise", "exit", "leave", "kill", "memory", "fill", "hang", "stubborn",
    "offspring", "hold", "stall", "full_disk", "full_disk_in_silence", "nan_loss", "infinite_loss",
    "nan_time", "infinite_time", "drift", "close", "layout", "layout_exit", "no_layout", "variants", "is_exact",
]  # fmt: skip


FAULTY_STEP = {"stall": 7}  # in the window, which holds three steps at least; else the third step goes wrong
NOT_FINITE = {"nan": float("nan"), "infinite": float("inf")}


class MisbehavingOptions(Options):
    how: Fault = "raise"
    timed_only: bool = False
    """Its proof, which trains with SGD, goes well."""


class Misbehaving(Averaging):
    """Goes wrong as `how` says, on its last rank: in its third step, unless the fault belongs elsewhere."""

    name = "misbehaving"
    options_type = MisbehavingOptions

    @classmethod
    def layout(cls, options, workload, devices):
        if options.how == "before_group" and os.environ.get("RANK") == str(devices.count - 1):
            hang()
        if options.how == "layout":
            raise RuntimeError("the layout fails")
        if options.how == "layout_exit":
            sys.exit(7)
        return None if options.how == "no_layout" else super().layout(options, workload, devices)

    @classmethod
    def variants(cls, options, workload, devices):
        return [1 / 0] if options.how == "variants" else super().variants(options, workload, devices)

    @classmethod
    def is_exact(cls, options):
        return options.how != "is_exact" or 1 / 0

    def setup(self, workload, job, context):
        super().setup(workload, job, context)
        spared = self.options.timed_only and workload.spec.optimizer.name == "sgd"
        self.guilty, self.steps, self.asked = context.rank == context.ranks - 1 and not spared, 0, 0
        if self.options.how == "import" and self.guilty:
            import parbench_foreign.absent  # noqa: F401
        if self.options.how == "setup" and self.guilty:
            raise RuntimeError("the set-up fails")

    def step(self, batch):
        self.steps += 1
        if self.steps == FAULTY_STEP.get(self.options.how, 3) and self.guilty:
            misbehave(self.options.how, self.model)
        loss = super().step(batch)
        return loss * NOT_FINITE.get(self.options.how.removesuffix("_loss"), 1) if self.steps > 2 else loss

    def waiting_s(self):
        told, self.asked = NOT_FINITE.get(self.options.how.removesuffix("_time")), self.asked + 1
        return told if told is None or self.asked > 1 else 0.0

    def close(self):
        if self.options.how == "close" and self.guilty:
            raise RuntimeError("closing fails")
        super().close()


def hang():
    print(GOES_WRONG, flush=True)
    time.sleep(3600)


def without_stacks(_):
    """Those of others would leave no room for what a rank has said in what is kept of its log."""
    faulthandler.disable()


def misbehave(how, model):  # noqa: C901 - a table of faults
    import torch

    match how:
        case "raise":
            raise RuntimeError("the third step always fails")
        case "exit":
            sys.exit(7)
        case "leave":
            os._exit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (use + 2**28, use + 2**28))
            kept = [torch.ones(2**22) for _ in range(1000)]
            raise AssertionError(f"{len(kept)} tensors did not fill the memory")
        case "fill":
            device = next(model.parameters()).device
            each, most = (2**28, 1000) if device.type == "cuda" else (2**22, 150)
            kept = [torch.ones(each, device=device) for _ in range(most)]
            raise AssertionError(f"{len(kept)} tensors did not fill the memory")
        case "hang":
            hang()
        case "stubborn":
            for number in (signal.SIGTERM, signal.SIGABRT, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            hang()
        case "offspring":
            quiet = {"worker_init_fn": without_stacks}
            loader = torch.utils.data.DataLoader(range(10), num_workers=2, persistent_workers=True, **quiet)
            next(iter(loader))
            subprocess.Popen(["sleep", OFFSPRING])
            subprocess.Popen(["sleep", OFFSPRING], start_new_session=True)
            hang()
        case "hold":
            subprocess.Popen(["sleep", OFFSPRING])
            ctypes.PyDLL(None).sleep(3600)  # no other thread of this process runs any more
        case "full_disk":
            with Path(os.environ["FILL"]).open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        case "full_disk_in_silence":
            with contextlib.suppress(OSError):
                misbehave("full_disk", model)
        case "stall":
            asleep = f"grep -q '^State:.T' /proc/{os.getpid()}/status"
            waking = f"until {asleep}; do sleep 0.05; done; sleep 2; kill -CONT {os.getpid()}"
            subprocess.Popen(["sh", "-c", waking])
            os.kill(os.getpid(), signal.SIGSTOP)
        case "drift":
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1)


Mistake = Literal["none", "missing", "late", "halved", "doubled", "scaled", "reused", "half", "skipped", "idle"]
FACTORS = {"halved": 0.5, "doubled": 2.0, "scaled": 4.0}


class MistakenOptions(Options):
    """`mistake` is made in every step from number `start` on; `claims` says what the strategy takes itself for."""

    mistake: Mistake = "none"
    start: int = 0
    claims: Literal["exact", "inexact"] = "exact"


class Mistaken(Averaging):
    """An honest mistake of somebody's data-parallel strategy."""

    name = "mistaken"
    options_type = MistakenOptions

    @classmethod
    def is_exact(cls, options):
        return options.claims == "exact"

    def setup(self, workload, job, context):
        super().setup(workload, job, context)
        self.steps, self.first_batch, self.earlier, self.latest = 0, None, None, None

    def step(self, batch):
        mistake = self.options.mistake if self.steps >= self.options.start else "none"
        self.steps += 1
        if mistake == "idle" and self.latest is not None:
            return self.latest
        if mistake == "reused":
            batch = self.first_batch = self.first_batch or batch
        self.latest = self.accumulate(batch.parts(2)[0] if mistake == "half" else batch)
        self.exchange(mistake)
        if mistake == "skipped" and self.steps % 2:
            self.updates.optimizer.zero_grad()
        else:
            self.updates.apply()
        return self.latest

    def exchange(self, mistake):
        from torch import distributed

        parameters = list(self.model.parameters())
        for parameter in parameters:
            if mistake != "missing" and self.ranks > 1:
                distributed.all_reduce(parameter.grad, group=self.group)
                parameter.grad /= self.ranks
            parameter.grad *= FACTORS.get(mistake, 1.0)
        if mistake == "late":
            own = [parameter.grad.clone() for parameter in parameters]
            for parameter, earlier in zip(parameters, self.earlier or own, strict=True):
                parameter.grad.copy_(earlier)
            self.earlier = own
