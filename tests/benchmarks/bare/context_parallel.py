"""Every rank has consecutive positions of each sequence; in each block it gathers the keys and values of all others."""

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tests.benchmarks.bare.models import LENGTH, AttentionBlock, Model, Setting, Step, adam, cross_entropy


class Gather(torch.autograd.Function):
    """(batch, heads, positions of this rank, size) → (batch, heads, all positions, size)."""

    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        gathered = own.new_empty(distributed.get_world_size(), *own.shape)
        distributed.all_gather(list(gathered), own.contiguous())
        return gathered.movedim(0, 2).flatten(2, 3)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        parts = gradient.unflatten(2, (distributed.get_world_size(), -1)).movedim(2, 0).contiguous()
        received = torch.empty_like(parts)
        distributed.all_to_all_single(received, parts)
        return received.sum(0)


class Block(AttentionBlock):
    """Attends to what is not ahead of this rank's positions."""

    def __init__(self, visible: Tensor):
        super().__init__()
        self.visible = visible

    def forward(self, x, cache=None):
        b, t, _ = x.shape
        parts = self.qkv(self.norm1(x)).split(self.width, 2)
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, Gather.apply(k), Gather.apply(v), attn_mask=self.visible)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, self.width))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


def whole(setting: Setting) -> tuple[Model, slice]:
    """The model for this rank's positions, and these."""
    length = LENGTH // setting.ranks
    own = slice(setting.rank * length, (setting.rank + 1) * length)
    positions = torch.arange(LENGTH)
    model = Model(setting.family)
    model.blocks = nn.ModuleList(Block(positions <= positions[own, None]) for _ in model.blocks)
    return model, own


def loss(model: nn.Module, tokens: Tensor, own: slice) -> Tensor:
    """Of this rank's positions."""
    return cross_entropy(model(tokens[:, :-1][:, own], start=own.start), tokens[:, 1:][:, own])


def train(setting: Setting) -> Step:
    model, own = whole(setting)
    model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = adam(model.parameters())

    def step(index):
        loss(model, setting.batch(index, whole=True), own).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def score(setting: Setting) -> Step:
    model, own = whole(setting)
    model.eval()

    def step(index):
        with torch.inference_mode():
            return loss(model, setting.batch(index, whole=True), own)

    return step
