"""FSDP2: a group for each block, what is left in the root's."""

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.benchmarks.bare.models import Model, Setting, Step, train


def build(setting: Setting) -> Step:
    model, mesh = Model(setting.family), init_device_mesh("cpu", (setting.ranks,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return train(model, setting)
