"""Models as users bring them, good and bad, for tests/test_custom.py."""

import os
import signal
import subprocess
import threading
import time

import torch
from torch import nn


class Seamed(nn.Module):
    """embed → blocks → head, the blocks of different widths inside."""

    def __init__(self, vocab_size, width=16, layers=4):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(width, 8 * (n + 1)), nn.Tanh(), nn.Linear(8 * (n + 1), width))
                for n in range(layers)
            )
        )
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens):
        return self.head(self.blocks(self.embed(tokens)))


class Tied(Seamed):
    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        self.head.weight = self.embed.weight


class Twice(Seamed):
    """Goes through its blocks twice, so that its parts are no seams."""

    def forward(self, tokens):
        return self.head(self.blocks(self.blocks(self.embed(tokens))))


class Widening(Seamed):
    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        self.blocks = nn.ModuleList([nn.Linear(16, 32), nn.Linear(32, 16)])

    def forward(self, tokens):
        hidden = self.embed(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


class Frozen(Seamed):
    """Positions that do not train, as fixed encodings are."""

    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        self.blocks[0][0].bias.requires_grad_(False)


class Idle(Seamed):
    """A parameter that nothing depends on."""

    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        self.spare = nn.Parameter(torch.zeros(3))


class Recurrent(nn.Module):
    """No parts that go by any name."""

    def __init__(self, vocab_size, width=16):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, vocab_size)

    def forward(self, tokens):
        return self.out(self.gru(self.tokens(tokens))[0])


class Strict(Seamed):
    """Refuses to learn unless it is in training, as cuDNN's recurrent layers do; only in a rank."""

    def forward(self, tokens):
        if torch.is_grad_enabled() and not self.training and "RANK" in os.environ:
            raise RuntimeError("backward can only be called in training mode")
        return super().forward(tokens)


def frozen(*, vocab_size, seq_len):
    return Frozen(vocab_size)


def idle(*, vocab_size, seq_len):
    return Idle(vocab_size)


def strict(*, vocab_size, seq_len):
    return Strict(vocab_size)


def seamed(*, vocab_size, seq_len, **options):
    print("people's code may print")
    return Seamed(vocab_size, **options)


def tied(*, vocab_size, seq_len):
    return Tied(vocab_size)


def twice(*, vocab_size, seq_len):
    return Twice(vocab_size)


def widening(*, vocab_size, seq_len):
    return Widening(vocab_size)


def recurrent(*, vocab_size, seq_len):
    return Recurrent(vocab_size)


def raising(*, vocab_size, seq_len):
    raise ValueError("no model today\nnor tomorrow")


def leaving(*, vocab_size, seq_len):
    raise SystemExit(3)


def without_sizes():
    return nn.Identity()


def no_module(*, vocab_size, seq_len):
    return {"layers": 3}


def no_parameters(*, vocab_size, seq_len):
    return nn.Identity()


def wrong_vocabulary(*, vocab_size, seq_len):
    return Seamed(vocab_size + 1)


def one_logit(*, vocab_size, seq_len):
    return nn.Sequential(nn.Embedding(vocab_size, vocab_size), nn.Flatten(1))


class Pair(Seamed):
    def forward(self, tokens):
        return super().forward(tokens), None


def pair(*, vocab_size, seq_len):
    return Pair(vocab_size)


class Confused(Seamed):
    def forward(self, tokens):
        return torch.cat([tokens, super().forward(tokens)])


def confused(*, vocab_size, seq_len):
    return Confused(vocab_size)


class Lazy(Seamed):
    """A part that learns its shape when it is first run."""

    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        self.head = nn.LazyLinear(vocab_size)


class Cut(Seamed):
    """Right for small batches."""

    def forward(self, tokens):
        return super().forward(tokens)[:4]


class Changed(Seamed):
    """Logits that went through something else at the end."""

    def __init__(self, vocab_size, change):
        super().__init__(vocab_size)
        self.change = change

    def forward(self, tokens):
        return self.change(super().forward(tokens))


class OneWay(torch.autograd.Function):
    """An operation whose gradient somebody has yet to write."""

    @staticmethod
    def forward(ctx, logits):
        return logits.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("no gradient yet")


def lazy(*, vocab_size, seq_len):
    return Lazy(vocab_size)


def on_meta(*, vocab_size, seq_len):
    with torch.device("meta"):
        return Seamed(vocab_size)


def cut(*, vocab_size, seq_len):
    return Cut(vocab_size)


def halved(*, vocab_size, seq_len):
    return Changed(vocab_size, torch.Tensor.bfloat16)


def detached(*, vocab_size, seq_len):
    return Changed(vocab_size, torch.Tensor.detach)


def infinite(*, vocab_size, seq_len):
    return Changed(vocab_size, lambda logits: logits / 0)


def one_way(*, vocab_size, seq_len):
    return Changed(vocab_size, OneWay.apply)


def gone(*, vocab_size, seq_len):
    os._exit(0)


def crashing(*, vocab_size, seq_len):
    os.kill(os.getpid(), signal.SIGSEGV)


def interrupting(*, vocab_size, seq_len):
    raise KeyboardInterrupt


def hanging(*, vocab_size, seq_len):
    for session in (False, True):
        subprocess.Popen(["sleep", os.environ["OFFSPRING"]], start_new_session=session)
    time.sleep(3600)


def forking(*, vocab_size, seq_len):
    """Ends while a child of it still holds all that was open."""
    if os.fork():
        os._exit(7)
    time.sleep(3600)


def threaded(*, vocab_size, seq_len):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return Seamed(vocab_size)


not_a_function = 5
