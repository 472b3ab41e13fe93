"""FSDP2: a group for each block, what is left in the root's."""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.benchmarks.bare.inference import generating, scoring
from tests.benchmarks.bare.models import Model, Setting, Step, training


def sharded(setting: Setting) -> Model:
    model, mesh = Model(setting.family), init_device_mesh("cpu", (setting.ranks,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def train(setting: Setting) -> Step:
    return training(sharded(setting), setting)


def score(setting: Setting) -> Step:
    # Sharded tensors fail in inference mode.
    return scoring(sharded(setting), setting, mode=torch.no_grad)


def generate(setting: Setting) -> Step:
    return generating(sharded(setting), setting, mode=torch.no_grad)
