"""Megatron's columns and rows by `parallelize_module`, and a loss over logits that stay split."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module
from torch.optim import Adam

from tests.benchmarks.bare.inference import generating, scoring
from tests.benchmarks.bare.models import Model, Setting, Step, adam, cross_entropy


def split(model: Model, mesh: DeviceMesh, *, logits=None) -> None:
    """Splits a model's blocks, and its head if it has one; `logits` says how those are laid out, split if not given."""
    for block in model.blocks:
        # With random weights, any third of a device's rows may be its queries.
        block.width, block.heads = block.width // mesh.size(), block.heads // mesh.size()
        columns, rows = ("qkv", "up"), ("out", "down")
        plan = {name: ColwiseParallel() for name in columns} | {name: RowwiseParallel() for name in rows}
        parallelize_module(block, mesh, plan)
    if model.head is not None:
        style = ColwiseParallel(output_layouts=logits or Shard(-1), use_local_output=logits is not None)
        parallelize_module(model.head, mesh, style)


def adam_of(model: nn.Module) -> Adam:
    """A fused step takes split and whole tensors apart."""
    parameters = list(model.parameters())
    groups = [[each for each in parameters if isinstance(each, DTensor) == is_split] for is_split in (True, False)]
    return adam([{"params": group} for group in groups if group])


def whole(setting: Setting, **how) -> Model:
    model = Model(setting.family)
    split(model, init_device_mesh("cpu", (setting.ranks,)), **how)
    return model


@contextmanager
def over_split_logits():
    # Sharded tensors fail in inference mode.
    with torch.no_grad(), loss_parallel():
        yield


def train(setting: Setting) -> Step:
    model = whole(setting)
    optimizer = adam_of(model)

    def step(index):
        tokens = setting.batch(index, whole=True)
        with loss_parallel():
            cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def score(setting: Setting) -> Step:
    return scoring(whole(setting), setting, whole=True, mode=over_split_logits)


def generate(setting: Setting) -> Step:
    return generating(whole(setting, logits=Replicate()), setting, whole=True, mode=torch.no_grad)
