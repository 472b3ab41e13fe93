"""The two models by hand, their data, and the step that most scripts share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

LAYERS, WIDTH, HEADS, VOCABULARY = 4, 128, 4, 256
LENGTH, GLOBAL_BATCH, PROMPT = 64, 32, 32

Step = Callable[[int], object]


class LSTMBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.lstm = nn.LayerNorm(WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, x, cache=None):
        if cache is None:
            return x + self.lstm(self.norm(x))[0]
        y, cache.state = self.lstm(self.norm(x), cache.state)
        return x + y


class AttentionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.width, self.heads = WIDTH, HEADS  # of this device, where tensors are split
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x, cache=None):
        b, t, _ = x.shape
        parts = self.qkv(self.norm1(x)).split(self.width, 2)
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in parts)
        causal = cache is None or cache.filled == 0
        if cache is not None:
            k, v = cache.extend(k, v)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, self.width))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Cache:
    """What a block of either sort remembers while it generates."""

    def __init__(self):
        self.state, self.filled = None, 0

    def extend(self, k, v):
        if self.filled == 0:
            b, h, _, d = k.shape
            self.k, self.v = k.new_empty(b, h, LENGTH, d), k.new_empty(b, h, LENGTH, d)
        end = self.filled + k.shape[2]
        self.k[:, :, self.filled : end], self.v[:, :, self.filled : end] = k, v
        self.filled = end
        return self.k[:, :, :end], self.v[:, :, :end]


class Embedding(nn.Module):
    def __init__(self, *, positions):
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02) if positions else None

    def forward(self, tokens, start=0):
        x = self.token(tokens)
        return x if self.position is None else x + self.position[start : start + tokens.shape[1]]


class Model(nn.Module):
    """The blocks of `blocks`, with the embedding before the first and the head after the last."""

    def __init__(self, family, blocks=range(LAYERS)):
        super().__init__()
        is_lstm = family == "lstm"
        self.embed = Embedding(positions=not is_lstm) if blocks.start == 0 else None
        self.blocks = nn.ModuleList(LSTMBlock() if is_lstm else AttentionBlock() for _ in blocks)
        last = blocks.stop == LAYERS
        self.norm = nn.LayerNorm(WIDTH) if last else None
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=is_lstm) if last else None

    def forward(self, x, caches=None, start=0):
        """All logits or, with caches, those of the last position."""
        if self.embed is not None:
            x = self.embed(x, start)
        for number, block in enumerate(self.blocks):
            x = block(x) if caches is None else block(x, caches[number])
        if self.head is None:
            return x
        return self.head(self.norm(x if caches is None else x[:, -1:]))


@dataclass
class Setting:
    """Where a script runs, and on which tokens: a file of bytes, its sequences in an order drawn once."""

    family: str
    tokens: str
    rank: int = 0
    ranks: int = 1
    offsets: Tensor = field(default_factory=lambda: torch.arange(LENGTH + 1))

    @cached_property
    def data(self) -> Tensor:
        with open(self.tokens, "rb") as file:  # noqa: PTH123 - as scripts do
            size = file.seek(0, 2)
        return torch.from_file(self.tokens, size=size, dtype=torch.uint8)

    @cached_property
    def order(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randperm((len(self.data) - 1) // LENGTH, generator=generator) * LENGTH

    def batch(self, index: int, *, whole: bool = False) -> Tensor:
        """(sequences, LENGTH + 1): this rank's part of a global batch, or all of it."""
        size = GLOBAL_BATCH if whole else GLOBAL_BATCH // self.ranks
        first = index * GLOBAL_BATCH + (0 if whole else self.rank * size)
        first %= len(self.order) - size
        return self.data[self.order[first : first + size, None] + self.offsets].long()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def adam(parameters) -> Adam:
    return Adam(parameters, lr=1e-3, fused=True)


def training(model: nn.Module, setting: Setting, optimizer: Optimizer | None = None, *, whole: bool = False) -> Step:
    """The plain training step of a model that may be wrapped, with Adam unless another optimizer is given."""
    optimizer = optimizer or adam(model.parameters())

    def step(index):
        tokens = setting.batch(index, whole=whole)
        cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
